"""The paper's figures as commands, each claim beside what a table shows."""

"""Reproduce the paper's figures: for each, the paper's claim and what a table of measurements shows."""

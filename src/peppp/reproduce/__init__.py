"""The paper's figures and tables from a table of measurements: numbers, and pictures with matplotlib."""

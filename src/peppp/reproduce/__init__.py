"""The paper's figures and tables, drawn from a table of measurements: numbers first, pictures with matplotlib."""

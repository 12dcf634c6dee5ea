"""Reports as one self-contained HTML page, made from plain data."""

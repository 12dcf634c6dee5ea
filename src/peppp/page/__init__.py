"""What people look at: one self-contained HTML page, fed plain data."""

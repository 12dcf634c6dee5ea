"""Measurements and error matrices: read, written, merged, selected, stored."""

"""Converts any module so that the values it computes are rounded."""

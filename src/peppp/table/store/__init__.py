"""Measurements in a database, shared by many workers."""

"""Predict the errors of a new task from a partly observed table, and choose what to measure on it."""

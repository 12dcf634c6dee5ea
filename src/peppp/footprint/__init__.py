"""Bytes of a training, counted before it runs."""

"""Rounding float32 tensors to formats of few bits."""

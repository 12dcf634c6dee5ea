"""Packed storage: weights, saved activations and pooling indices in few bits."""

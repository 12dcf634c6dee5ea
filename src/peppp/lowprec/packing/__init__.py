"""Tensors stored in exactly as many bits as their format has."""

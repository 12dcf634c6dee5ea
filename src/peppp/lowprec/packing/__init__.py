"""Tensors in as many bits as their format has."""

"""Torch optimizers with gradient, states and accumulator in Format B."""

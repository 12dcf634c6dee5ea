"""Low precision: rounding, networks with rounded values, and optimizers with rounded states."""

"""Numbers of few bits: rounding, networks whose values are rounded, optimizers whose states are."""

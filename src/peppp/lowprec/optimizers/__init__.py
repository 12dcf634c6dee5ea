"""Format B around torch's optimizers."""

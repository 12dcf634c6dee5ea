"""Train a network at one configuration, and measure it."""

"""From data, a network and a budget to a configuration."""

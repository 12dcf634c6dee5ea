"""Choose a configuration for given data, a network and a memory budget."""

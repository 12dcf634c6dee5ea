"""One training at one configuration, and its measurement."""

"""Plan campaigns of many measurements, run them with an engine, and keep the results in a store."""

"""What is trained: data sets, read from where people have them, and networks."""

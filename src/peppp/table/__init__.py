"""Read, write, merge, select and store measurements, and make error matrices of them."""

"""The same arithmetic on a GPU, with Triton."""

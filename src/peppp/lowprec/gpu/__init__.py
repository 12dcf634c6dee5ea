"""The same arithmetic on a GPU, by Triton."""

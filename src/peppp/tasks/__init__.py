"""Data sets, read from disk, archives or the Hugging Face hub, and networks to train on them."""

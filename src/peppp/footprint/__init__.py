"""The memory of a training in bytes, estimated before it runs."""

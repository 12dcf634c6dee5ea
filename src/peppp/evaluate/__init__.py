"""Evaluate methods: each task of a known table takes the place of the new one."""

"""Whether methods work: tasks of a known table in the place of a new one."""

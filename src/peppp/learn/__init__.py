"""What a partly known table tells about a new task: completion, and the choice of what to measure."""

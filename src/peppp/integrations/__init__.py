"""Where people already are: other tools that use what peppp knows."""

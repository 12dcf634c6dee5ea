"""What a training really keeps in few bits."""

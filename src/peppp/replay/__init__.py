"""Does it work? The methods run over a table whose errors are known, as if they had yet to be measured."""

"""The precisions that people name: what each rounds, what it keeps, and what runs it."""

"""The precisions that people know by name: what each rounds, what memory it keeps, what hardware it needs."""

"""study/results."""

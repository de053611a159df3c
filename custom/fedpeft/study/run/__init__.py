"""study/run."""

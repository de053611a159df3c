"""training/engine."""

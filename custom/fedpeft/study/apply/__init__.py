"""A finished run's model on other data: evaluation and inference."""

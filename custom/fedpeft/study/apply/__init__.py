"""Apply a finished run's model to other data: evaluation and inference."""

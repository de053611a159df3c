"""Tasks: one class a task holds its training data, loss, predictions and scores."""

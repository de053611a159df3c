"""The tasks: one class for each holds its training data, loss, predictions and scores."""

"""Images of one class each: reading, augmenting, preparing and checking them, and the training data set."""

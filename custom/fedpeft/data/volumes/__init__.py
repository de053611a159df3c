"""Volumes: reading, normalising, augmenting, preparing and checking them, and the training data set of stacks."""

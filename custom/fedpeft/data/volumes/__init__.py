"""Volumes: read, normalise, augment, prepare and check them, and cut them into stacks for training."""

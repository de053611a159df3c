"""Images of one class each: read, augment, prepare and check them, and batch them for training."""

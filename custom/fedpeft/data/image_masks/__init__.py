"""Images with a mask each: read, prepare and check them, and batch them for training."""

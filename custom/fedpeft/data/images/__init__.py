"""data/images."""

"""training/client."""

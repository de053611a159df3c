"""training/server."""

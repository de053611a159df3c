"""models/checkpoints."""

"""Parts of ``fedpeft compare``."""

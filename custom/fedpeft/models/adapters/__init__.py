"""models/adapters."""

"""Adapters, which are added to a backbone: each module registers the kinds that it implements."""

"""Averaging rules for the sites' parameters: each module registers the rules of one kind."""

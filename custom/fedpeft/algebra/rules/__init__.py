"""Averaging rules for the sites' parameters: one module per kind of rule, which registers its rules."""

"""Pretraining of the backbone that ships with the package, on synthetic images alone."""

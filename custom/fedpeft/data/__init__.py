"""Volumes and images: layouts, normalisation, stacks of slices, phantoms. Knows neither models nor FLARE."""

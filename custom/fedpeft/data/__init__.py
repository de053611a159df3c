"""Volumes and images: datalists, sources, preparation, checks and training data; no knowledge of models or FLARE."""

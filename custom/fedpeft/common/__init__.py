"""Atomic files, fingerprints, devices, precision and registries; no knowledge of models, data or FLARE."""

"""NVIDIA FLARE's side of a federation: what FLARE builds from a job's configuration, and how a job is rendered."""

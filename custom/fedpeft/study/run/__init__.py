"""Run a comparison's experiments: worker processes, FLARE's simulator and progress."""

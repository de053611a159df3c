"""The training loop and its parts, the same for every method, task and setting."""

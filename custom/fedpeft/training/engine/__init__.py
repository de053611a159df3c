"""The training loop and what it is made of: the same for every method, task and setting."""

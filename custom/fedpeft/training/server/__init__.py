"""What the server does in a run: the round, the choice of the best model, the run folder. No FLARE in it."""

"""The server side of a run, free of FLARE: the round, the choice of the best model, the run folder."""

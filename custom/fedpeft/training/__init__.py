"""Training, evaluation and the run folder. Knows nothing of FLARE: what is here can run in any process."""

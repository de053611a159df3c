"""Training, validation and the run folder; nothing here depends on FLARE, so it runs in any process."""

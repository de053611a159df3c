"""Plan a comparison: its runs and experiments; render jobs with changes."""

"""What a comparison is made of: its runs and experiments, and the jobs that are rendered."""

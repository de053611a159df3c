"""What can be run, as rows of frozen dataclasses. Standard library only: every room reads it."""

"""What can be run, as rows of frozen dataclasses. Standard library only: every other room may read it, it reads none."""

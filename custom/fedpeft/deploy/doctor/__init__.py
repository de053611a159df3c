"""deploy/doctor."""

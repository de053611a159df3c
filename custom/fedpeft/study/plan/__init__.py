"""study/plan."""

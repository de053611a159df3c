"""study/apply."""

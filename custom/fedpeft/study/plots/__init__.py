"""study/plots."""

"""The results of a comparison: scores, summaries, contrasts and tables."""

"""What a comparison found: scores, summaries, contrasts, tables."""

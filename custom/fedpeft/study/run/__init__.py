"""How experiments run: worker processes, FLARE's simulator, and how far they are."""

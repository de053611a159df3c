"""Tasks: what a model is trained on, its loss, its prediction and its score."""

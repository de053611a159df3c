"""models/vit."""

"""The plain Vision Transformer."""

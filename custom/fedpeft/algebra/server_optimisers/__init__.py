"""Server optimisers: one module per family, which registers its optimisers."""

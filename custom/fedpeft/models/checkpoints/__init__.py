"""Read published weights: one module per published format, which registers it."""

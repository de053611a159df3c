"""Reading published weights: one module a published format, each of which registers itself."""

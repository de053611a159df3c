"""Files of other programs that adapt SAM: one module per program, which registers the form of its files."""

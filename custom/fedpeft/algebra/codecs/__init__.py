"""How tensors are written on the wire: one module a codec, each of which registers itself."""

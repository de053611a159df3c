"""Codecs, the encodings on the wire: one module per codec, which registers it."""

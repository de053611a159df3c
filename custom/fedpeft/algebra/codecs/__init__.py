"""Codecs, the encodings on the wire: each module registers one."""

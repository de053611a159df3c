"""Seeds made of names and numbers, the same on every machine."""

import hashlib


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any parts, the same on every machine and in every process.

    A site's seed is ``seed_of(run.training.seed, site, round)``; a tensor's is ``seed_of(run.training.seed, path)``.
    """
    hashed = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(hashed[:8], "big") >> 1

"""Codecs: registry entries of the encodings on the wire, which ``fedpeft.algebra.codecs`` implements."""

from dataclasses import dataclass

from fedpeft.common.registry import Registry


@dataclass(frozen=True)
class Codec:
    """A codec's entry.

    Attributes:
        name: what jobs and commands call it.
        note: its size and precision, for people.
        exact: whether every number arrives as it was sent, so that there are no quantisation errors to keep.
    """

    name: str
    note: str
    exact: bool = False


CODECS: Registry[Codec] = Registry("codec")


def register_codecs(*entries: Codec) -> None:
    """Add codecs; ValueError if there is one of that name."""
    for entry in entries:
        CODECS.register(entry.name, entry)


register_codecs(
    Codec("float32", "exactly, 4 bytes a number", exact=True),
    Codec("bfloat16", "2 bytes a number"),
    Codec("int8", "1 byte a number, and a scale for every 128 of them"),
)

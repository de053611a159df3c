"""Entries by name: the one way in which methods, backbones, data sets, codecs and the rest are found and added."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping of names to entries, in the order of registration, to which entries can be added.

    Args:
        kind: what the entries are, for messages: "method", "codec".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Add an entry.

        Returns:
            The entry.

        Raises:
            ValueError: there is another one of that name.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already; give the new one another name")
        self._entries[name] = entry
        return entry

    def find(self, name: str) -> T:
        """The entry called ``name``.

        Raises:
            ValueError: there is none; the message lists those that exist.
        """
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} {name!r}; known: {', '.join(self._entries)}")
        return self._entries[name]

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    # A registry is equal to itself alone, so it can be a dictionary's key.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

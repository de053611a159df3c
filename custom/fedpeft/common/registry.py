"""The registry class with which methods, backbones, data sets, codecs and other entries are added and found by name."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import walk_packages
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping of names to entries, in the order of registration, to which entries can be added.

    Args:
        kind: what the entries are, for messages: "method", "codec".
        package: name of a package whose modules register entries. All of them, sub-packages included, are imported
            before the first entry is looked up. "" if there is no such package.
    """

    def __init__(self, kind: str, package: str = "") -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Add an entry.

        Returns:
            The entry.

        Raises:
            ValueError: there is another entry of that name.
        """
        if self._entries.setdefault(name, entry) is not entry:
            raise ValueError(f"{self.kind} {name!r} is registered already; give the new one another name")
        return entry

    def find(self, name: str) -> T:
        """The entry called ``name``.

        Raises:
            ValueError: there is none; the message lists those that exist.
        """
        entries = self._discovered()
        if name not in entries:
            raise ValueError(f"unknown {self.kind} {name!r}; known: {', '.join(entries)}")
        return entries[name]

    def _discovered(self) -> dict[str, T]:
        """All entries, after the package's modules have registered theirs.

        The constructor cannot import them, because they import the registry. Threads that arrive together all wait.
        """
        if self._package:
            for module in walk_packages(import_module(self._package).__path__, f"{self._package}."):
                import_module(module.name)
            self._package = ""
        return self._entries

    def __getitem__(self, name: str) -> T:
        return self._discovered()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._discovered())

    def __len__(self) -> int:
        return len(self._discovered())

    # A registry is equal to itself alone, so it can be a dictionary's key.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

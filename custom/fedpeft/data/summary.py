"""A check's summary of a site: the part that volumes and images share, and its line in a table."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary(ABC):
    """What a site has.

    Attributes:
        site: name.
        cases: number of cases by split.
        shape: smallest and largest size along each axis: voxels along R, A and S, or height and width in pixels.
    """

    site: str
    cases: dict[str, int]
    shape: tuple[tuple[int, ...], tuple[int, ...]]

    @abstractmethod
    def columns(self) -> list[tuple[str, str]]:
        """The columns after the number of cases: heading and text of each."""

    def line(self) -> list[tuple[str, str]]:
        """The line of a table: heading and text of each column."""
        return [("site", self.site), ("train/val/test", "/".join(map(str, self.cases.values()))), *self.columns()]


def span(low: Sequence[float], high: Sequence[float]) -> str:
    """Smallest to largest along each axis, as text."""
    pairs = zip(low, high, strict=True)
    return " x ".join(f"{a:g}" if a == b else f"{a:g}-{b:g}" for a, b in pairs)


def extremes(sizes: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Smallest and largest along each axis of at least one size."""
    axes = list(zip(*sizes, strict=True))
    return tuple(map(min, axes)), tuple(map(max, axes))

"""Splits of pictures: stratified by class, and pictures of one lesion or patient never on two sides.

A site's groups are laid in a line, class after class, the most frequent first, each class in random order; splits are
taken at regular steps along the line. So every class comes as near to its share as whole groups allow.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import floor

from fedpeft.data.datalist import SPLITS
from fedpeft.data.prepare.image_writing import Picture
from fedpeft.data.table import shuffled

# 70 / 10 / 20; three groups are enough for all.
PATTERN = ("test", "training", "validation", *("training",) * 3, "test", *("training",) * 3)

# Pictures of one group, or a single one of which no group is known.
Unit = tuple[Picture, ...]


def units_of(pictures: Iterable[Picture]) -> list[Unit]:
    """Pictures by group, in the order of sites and cases."""
    units: dict[tuple[str, ...], list[Picture]] = {}
    for picture in sorted(pictures, key=lambda picture: (picture.site, picture.case)):
        key = (picture.group,) if picture.group else (picture.site, picture.case)
        units.setdefault(key, []).append(picture)
    return [tuple(unit) for unit in units.values()]


def target_of(unit: Unit) -> int:
    """The class of most of a unit's pictures, the lowest of several."""
    counts = Counter(picture.target for picture in unit)
    return min(counts, key=lambda target: (-counts[target], target))


def draw_splits(pictures: Sequence[Picture], seed: int) -> tuple[list[Picture], list[str]]:
    """Seeded 70 / 10 / 20 splits of each site; a group at several sites is split with the first of them.

    Args:
        pictures: of any splits, which are replaced.
        seed: 0 or more.

    Returns:
        The pictures with their splits, and as faults the sites with fewer than three groups.
    """
    drawn, faults = [], []
    for site, line in _lines(units_of(pictures), seed).items():
        if len(line) < len(SPLITS):
            faults.append(f"{site}: {len(line)} cases or groups, expected at least {len(SPLITS)} to split; give splits")
        drawn += _marked(line, lambda place: PATTERN[place % len(PATTERN)])
    return drawn, faults


def draw_validation(pictures: Sequence[Picture], share: float, seed: int) -> tuple[list[Picture], list[str]]:
    """Move a seeded share of each site's training groups to validation, at least one; the others stay.

    Args:
        pictures: with splits; groups of training pictures move as a whole.
        share: of the training groups, above 0 and below 1.
        seed: 0 or more.

    Returns:
        The pictures with their splits, and as faults the sites that would be left without a training case.

    Raises:
        ValueError: ``share`` is out of range.
    """
    if not 0 < share < 1:
        raise ValueError(f"share of validation is {share}, expected one above 0 and below 1")
    drawn, faults = [picture for picture in pictures if picture.split != "training"], []
    training = [picture for picture in pictures if picture.split == "training"]
    for site, line in _lines(units_of(training), seed).items():
        if len(line) < 2:
            faults.append(f"{site}: {len(line)} case or group for training, expected at least 2 to take some away")
        drawn += _marked(line, lambda place: "validation" if _taken(place, share) else "training")
    return drawn, faults


def _taken(place: int, share: float) -> bool:
    """The first of a line, and then whenever another whole one has come together."""
    return floor(place * share) > floor((place - 1) * share)


def _lines(units: Sequence[Unit], seed: int) -> dict[str, list[Unit]]:
    lines = {}
    for site in sorted({unit[0].site for unit in units}):
        own = [unit for unit in units if unit[0].site == site]
        counts = Counter(map(target_of, own))
        lines[site] = sorted(
            shuffled(site, own, seed), key=lambda unit, counts=counts: (-counts[target_of(unit)], target_of(unit))
        )
    return lines


def _marked(line: Sequence[Unit], split_at: Callable[[int], str]) -> list[Picture]:
    return [replace(picture, split=split_at(place)) for place, unit in enumerate(line) for picture in unit]

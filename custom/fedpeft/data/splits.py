"""Seeded splits of each site's cases: stratified by class, with no lesion or patient in two splits.

The units of a split are groups: all cases of one lesion or patient, or a single case whose group is unknown. Where
cases have classes, a site's groups form a line, class after class, the most frequent class first, each class in random
order. Splits are taken at regular steps along the line, so every class comes as near to its share as whole groups
allow. Without classes, the line is one random order and is cut into parts.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import floor
from typing import TypeVar

import numpy as np

from fedpeft.data.datalist import SPLITS
from fedpeft.data.found import FoundCase

# 70 / 10 / 20 at regular steps; three groups are enough for all three splits.
PATTERN = ("test", "training", "validation", *("training",) * 3, "test", *("training",) * 3)
# The same shares for a line without classes; the rest is for training.
SHARES = {"validation": 0.1, "test": 0.2}

# The cases of one group, or a single case whose group is unknown.
Unit = tuple[FoundCase, ...]
Item = TypeVar("Item")


def draw_splits(cases: Sequence[FoundCase], seed: int) -> tuple[list[FoundCase], list[str]]:
    """Seeded 70 / 10 / 20 splits of each site; a group at several sites is split with the first of them.

    Args:
        cases: their splits, if any, are replaced.
        seed: 0 or more.

    Returns:
        The cases with their splits, and a fault for each site with fewer than three groups.
    """
    split, faults = [], []
    for site, line in _lines(units_of(cases), seed).items():
        if len(line) < len(SPLITS):
            few = f"{site}: {len(line)} cases or groups, expected at least {len(SPLITS)} to split"
            faults.append(f"{few}; give splits in a --table")
        split += _marked(line, _pattern(len(line)) if _classified(line) else _parts(len(line), SHARES))
    return split, faults


def draw_validation(cases: Sequence[FoundCase], share: float, seed: int) -> tuple[list[FoundCase], list[str]]:
    """Move a seeded share of each site's training groups to validation, at least one; the others stay.

    Args:
        cases: with splits; groups of training cases move as a whole.
        share: of the training groups, above 0 and below 1.
        seed: 0 or more.

    Returns:
        The cases with their splits, and a fault for each site that would have no training case left.

    Raises:
        ValueError: ``share`` or ``seed`` is out of range.
    """
    if not 0 < share < 1 or seed < 0:
        raise ValueError(f"share of validation is {share}, seed {seed}; expected a share between 0 and 1, a seed >= 0")
    split, faults = [case for case in cases if case.split != "training"], []
    training = [case for case in cases if case.split == "training"]
    for site, line in _lines(units_of(training), seed).items():
        marks = _steps(len(line), share) if _classified(line) else _parts(len(line), {"validation": share})
        if "training" not in marks:
            taken = f"{site}: {len(line)} training cases or groups, {len(marks)} of them for validation"
            faults.append(f"{taken}; expected at least 2, and a smaller share")
        split += _marked(line, marks)
    return split, faults


def units_of(cases: Iterable[FoundCase]) -> list[Unit]:
    """Cases by group, in the order of sites and cases."""
    units: dict[tuple[str, ...], list[FoundCase]] = {}
    for case in sorted(cases, key=lambda case: (case.site, case.case)):
        key = (case.group,) if case.group else (case.site, case.case)
        units.setdefault(key, []).append(case)
    return [tuple(unit) for unit in units.values()]


def target_of(unit: Unit) -> int:
    """The class of most of a unit's cases, the lowest in a tie; 0 without classes."""
    counts = Counter(case.target or 0 for case in unit)
    return min(counts, key=lambda target: (-counts[target], target))


def shuffled(site: str, items: Sequence[Item], seed: int) -> list[Item]:
    """A random order that site and seed alone determine, so that adding a site does not change the others."""
    word = int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big")
    return [items[index] for index in np.random.default_rng((seed, word)).permutation(len(items))]


def _lines(units: Sequence[Unit], seed: int) -> dict[str, list[Unit]]:
    """Site -> its units in the order in which splits are taken."""
    by_site: dict[str, list[Unit]] = {}
    for unit in units:
        by_site.setdefault(unit[0].site, []).append(unit)
    return {site: _line(site, own, seed) for site, own in sorted(by_site.items())}


def _line(site: str, units: Sequence[Unit], seed: int) -> list[Unit]:
    counts = Counter(map(target_of, units))
    return sorted(shuffled(site, units, seed), key=lambda unit: (-counts[target_of(unit)], target_of(unit)))


def _classified(line: Sequence[Unit]) -> bool:
    return any(case.target is not None for unit in line for case in unit)


def _pattern(count: int) -> list[str]:
    return [PATTERN[place % len(PATTERN)] for place in range(count)]


def _steps(count: int, share: float) -> list[str]:
    """Mark the first unit of a line for validation, then each unit at which the running share gains a whole unit."""
    taken = [floor(place * share) > floor((place - 1) * share) for place in range(count)]
    return ["validation" if here else "training" for here in taken]


def _parts(count: int, shares: dict[str, float]) -> list[str]:
    """Cut a line into the parts of ``shares``, at least one unit each, and training."""
    marks = [split for split, share in shares.items() for _ in range(max(1, round(share * count)))]
    return (marks + ["training"] * count)[:count]


def _marked(line: Sequence[Unit], marks: Sequence[str]) -> list[FoundCase]:
    return [replace(case, split=split) for unit, split in zip(line, marks, strict=True) for case in unit]

"""Redistribute cases to sites, to compare federations that differ only in which site has which case.

Every case keeps its split, so the pooled test set is the same for every partition; cases of one group stay at one site.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedpeft.data.datalist import SPLITS
from fedpeft.data.found import FoundCase
from fedpeft.data.splits import Unit, target_of, units_of

NATURAL, EQUAL = "natural", "iid"


@dataclass(frozen=True)
class Shape:
    """The wanted sizes and class distributions of the sites.

    Attributes:
        shares: (sites,) shares of all cases, sum 1.
        mixes: (sites, classes), a distribution over classes for each site; None: each remaining case is equally likely.
    """

    shares: np.ndarray
    mixes: np.ndarray | None = None


def iid(prior: np.ndarray, sites: int, alpha: float, rng: np.random.Generator) -> Shape:
    """Sites of equal size, cases at random."""
    return Shape(np.full(sites, 1 / sites))


def dirichlet(prior: np.ndarray, sites: int, alpha: float, rng: np.random.Generator) -> Shape:
    """Sites of equal size, classes skewed as in Hsu, Qi and Brown 2019 (arXiv:1909.06335): q ~ Dir(alpha p) per site.

    p is the distribution of the classes over all cases. A large alpha makes every site like p, a small one gives most
    sites one class. A site whose classes are used up takes any remaining cases.
    """
    mixes = np.zeros((sites, len(prior)))
    mixes[:, prior > 0] = rng.dirichlet(alpha * prior[prior > 0], size=sites)
    return Shape(np.full(sites, 1 / sites), mixes)


def quantity(prior: np.ndarray, sites: int, alpha: float, rng: np.random.Generator) -> Shape:
    """Sites' shares of the cases ~ Dir(alpha, ..., alpha), cases at random."""
    return Shape(rng.dirichlet(np.full(sites, alpha)))


@dataclass(frozen=True)
class Partition:
    """An entry of the partitions.

    Attributes:
        shape: (distribution of the classes, sites, alpha, rng) -> the wanted shape of the sites.
        skewed: whether it uses alpha, the concentration of a Dirichlet distribution.
    """

    shape: Callable[[np.ndarray, int, float, np.random.Generator], Shape]
    skewed: bool = True


PARTITIONS: dict[str, Partition] = {
    EQUAL: Partition(iid, skewed=False), "dirichlet": Partition(dirichlet), "quantity": Partition(quantity),
}  # fmt: skip


def partition(cases: Sequence[FoundCase], how: str, sites: int, alpha: float, seed: int) -> list[FoundCase]:
    """Distribute cases to ``site-1`` ... ``site-<sites>``.

    Each split is distributed separately, in the same shape; a group in several splits goes with its training cases.
    Every site gets a training case, and a case of every other split that has at least as many groups as sites.

    Args:
        cases: with splits; their sites are replaced.
        how: a name in ``PARTITIONS``.
        sites: 1 or more.
        alpha: above 0, see ``Partition``.
        seed: 0 or more; the same seed gives the same partition.

    Returns:
        The same cases in another order.

    Raises:
        ValueError: an argument is out of range, or there are too few training cases.
    """
    if how not in PARTITIONS or sites < 1 or not alpha > 0:
        raise ValueError(
            f"partition {how!r} to {sites} sites with alpha {alpha}: expected one of {', '.join(PARTITIONS)}, at least "
            "1 site and an alpha above 0"
        )
    rng, units = np.random.default_rng(seed), units_of(cases)
    strata = {split: [unit for unit in units if _split(unit) == split] for split in SPLITS}
    if len(strata["training"]) < sites:
        raise ValueError(f"{len(strata['training'])} training cases or groups for {sites} sites, expected as many")
    prior = np.bincount([case.target or 0 for case in cases]) / len(cases)
    shape = PARTITIONS[how].shape(prior, sites, alpha, rng)
    return [
        replace(case, site=f"site-{site + 1}")
        for stratum in strata.values()
        for site, unit in _deal(stratum, shape, rng)
        for case in unit
    ]


def _split(unit: Unit) -> str:
    return min((case.split or "" for case in unit), key=SPLITS.index)


def _deal(units: Sequence[Unit], shape: Shape, rng: np.random.Generator) -> Iterator[tuple[int, Unit]]:
    """Every unit with its site: the site with most cases missing picks a class at random, then a unit of that class."""
    targets = np.array([target_of(unit) for unit in units], dtype=np.int64)
    stock = {int(target): rng.permutation(np.flatnonzero(targets == target)).tolist() for target in np.unique(targets)}
    left = np.bincount(targets, weights=[len(unit) for unit in units], minlength=1)
    wanted, given = shape.shares * left.sum(), np.zeros(len(shape.shares))
    for _ in units:
        # Each site first gets one unit, even if its share is less than a case.
        site = int(np.argmin(given > 0)) if (given == 0).any() else int(np.argmax(wanted - given))
        target = int(rng.choice(len(left), p=_odds(shape, site, left)))
        unit = units[stock[target].pop()]
        given[site] += len(unit)
        left[target] -= len(unit)
        yield site, unit


def _odds(shape: Shape, site: int, left: np.ndarray) -> np.ndarray:
    odds = left if shape.mixes is None else shape.mixes[site, : len(left)] * (left > 0)
    odds = odds if odds.sum() > 0 else left
    return odds / odds.sum()

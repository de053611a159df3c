"""How sure a difference of mean Dice is: a paired bootstrap over the tested cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

# (site, case) or (site, case, class) -> Dice.
Scores = Mapping[tuple[str, ...], float]

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """A mean difference and its interval, in Dice."""

    mean: float
    low: float
    high: float


def paired_difference(
    first: Scores, second: Scores, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Difference:
    """The mean of ``first - second`` over sites, with its percentile bootstrap interval.

    A case's differences are averaged over its classes, a site's over its cases, and the sites' means over sites: the
    difference of two columns' Averages. Each resample draws every site's cases anew, with replacement and as many as
    there are, both columns together. The sites stay: the interval speaks of other patients at the same sites.

    Args:
        first: Dice by (site, case) or (site, case, class); average it over seeds before (``over_seeds``).
        second: the same of the other column, with the same keys.
        resamples: how often to draw.
        seed: of the draws; the same seed gives the same interval to the last bit.
        level: share of the resamples inside the interval.

    Raises:
        ValueError: there is no score, or the keys differ; the message names one.
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())[0]
        raise ValueError(f"{odd} has a score in one column alone; score the same cases of the same split with both")
    if not first:
        raise ValueError("there is no score; expected the Dice of at least one case")
    generator = np.random.default_rng(seed)
    sites = _by_site({key: first[key] - second[key] for key in first})
    drawn = np.zeros(resamples)
    for values in sites:
        drawn += values[generator.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn / len(sites), [(1 - level) / 2, (1 + level) / 2])
    return Difference(fmean(values.mean() for values in sites), float(low), float(high))


def over_seeds(scores: Sequence[Scores]) -> dict[tuple[str, ...], float]:
    """The mean of several seeds' scores, key by key.

    Raises:
        ValueError: the keys differ.
    """
    if any(item.keys() != scores[0].keys() for item in scores):
        raise ValueError("the seeds scored different cases; score the same split with every seed")
    return {key: fmean(item[key] for item in scores) for key in scores[0]}


def _by_site(differences: Scores) -> list[np.ndarray]:
    """For each site, in the order of names, its cases' differences."""
    cases: dict[tuple[str, str], list[float]] = {}
    for key, value in differences.items():
        cases.setdefault((key[0], key[1]), []).append(value)
    sites: dict[str, list[float]] = {}
    for site, case in sorted(cases):
        sites.setdefault(site, []).append(fmean(cases[site, case]))
    return [np.array(values) for values in sites.values()]

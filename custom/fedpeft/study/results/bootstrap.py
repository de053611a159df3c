"""The interval of a mean score, or of a contrast of two, by a paired bootstrap over the tested cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

# (site, case) or (site, case, class) -> score.
Scores = Mapping[tuple[str, ...], float]

RESAMPLES = 10_000


@dataclass(frozen=True)
class Contrast:
    """The difference of two mean scores, and its interval."""

    mean: float
    low: float
    high: float


def paired_contrast(
    first: Scores, second: Scores, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Contrast:
    """The mean of ``first - second`` over sites, with its percentile bootstrap interval.

    A case's difference is the mean over its classes, a site's is the mean over its cases, and the contrast is the mean
    over sites, which is the difference between the Averages of two table lines. If cases have different classes, as in
    classification, cases with the same classes are averaged first. A resample replaces every site's cases with the same
    classes by as many sampled with replacement, the same ones for both scores. It keeps the sites, so the interval
    covers the choice of patients at these sites, not that of sites.

    Args:
        first: scores by (site, case) or (site, case, class), means over seeds (``over_seeds``).
        second: the other model's scores, with the same keys.
        resamples: number of resamples.
        seed: seed of the resampling; the same seed gives the same interval to the last bit.
        level: share of the resamples inside the interval.

    Raises:
        ValueError: there is no score, or the keys differ; the message names one.
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())[0]
        raise ValueError(f"{odd} has only one of the two scores; score the same cases of the same split with both")
    if not first:
        raise ValueError("there is no score; expected that of at least one case")
    generator = np.random.default_rng(seed)
    sites = _by_site({key: first[key] - second[key] for key in first})
    totals = np.zeros(resamples)
    for groups in sites:
        for values in groups:
            chosen = generator.integers(len(values), size=(resamples, len(values)))
            totals += values[chosen].mean(axis=1) / len(groups)
    low, high = np.quantile(totals / len(sites), [(1 - level) / 2, (1 + level) / 2])
    means = [fmean(values.mean() for values in groups) for groups in sites]
    return Contrast(fmean(means), float(low), float(high))


def mean_interval(scores: Scores) -> Contrast:
    """A mean score over sites with its interval, by the rules of ``paired_contrast``; ValueError if there is none."""
    return paired_contrast(scores, dict.fromkeys(scores, 0.0))


def over_seeds(scores: Sequence[Scores]) -> dict[tuple[str, ...], float]:
    """The mean over seeds of the score of each key.

    Raises:
        ValueError: the keys differ.
    """
    if any(item.keys() != scores[0].keys() for item in scores):
        raise ValueError("the seeds scored different cases; score the same split with every seed")
    return {key: fmean(item[key] for item in scores) for key in scores[0]}


def _by_site(contrasts: Scores) -> list[list[np.ndarray]]:
    """The contrasts of each site's cases, sites in the order of names, with an array for cases of the same classes."""
    cases: dict[tuple[str, str], dict[tuple[str, ...], float]] = {}
    for key, value in contrasts.items():
        cases.setdefault((key[0], key[1]), {})[key[2:]] = value
    sites: dict[str, dict[tuple[tuple[str, ...], ...], list[float]]] = {}
    for (site, _), values in sorted(cases.items()):
        sites.setdefault(site, {}).setdefault(tuple(values), []).append(fmean(values.values()))
    return [[np.array(values) for values in groups.values()] for groups in sites.values()]

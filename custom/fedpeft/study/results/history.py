"""Read and average validation curves."""

import csv
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean

from fedpeft.training.server.run_folder import METRICS

# [rounds, score] in the order of the rounds.
Curve = list[list[float]]


def history(folder: Path) -> dict[str, Curve]:
    """Site -> its curve of mean validation scores over classes, from a run folder."""
    values: dict[str, dict[int, list[float]]] = {}
    with (folder / METRICS).open() as stream:
        # The last column is the score, whose heading depends on the task.
        for rounds, site, _, _, score in islice(csv.reader(stream), 1, None):
            values.setdefault(site, {}).setdefault(int(rounds), []).append(float(score))
    return {
        site: [[rounds, fmean(scores)] for rounds, scores in sorted(points.items())]
        for site, points in sorted(values.items())
    }


def aligned(curves: Sequence[Curve]) -> tuple[list[float], list[list[float]]]:
    """The rounds that all curves have, and each curve's scores at them; a site may not have validated every round."""
    tables = [{number: score for number, score in curve} for curve in curves]
    rounds = sorted(set.intersection(*map(set, tables)))
    return rounds, [[values[number] for number in rounds] for values in tables]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of several curves, at the rounds that all of them have."""
    rounds, scores = aligned(curves)
    return [[number, fmean(values)] for number, values in zip(rounds, zip(*scores, strict=True), strict=True)]

"""Validation curves of runs."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from fedpeft.train.run_folder import METRICS

# [rounds, Dice] in the order of the rounds.
Curve = list[list[float]]


def history(folder: Path) -> dict[str, Curve]:
    """Site -> [rounds, mean validation Dice over classes] of a run folder, in the order of the rounds."""
    values: dict[str, dict[int, list[float]]] = {}
    with (folder / METRICS).open() as stream:
        for row in csv.DictReader(stream):
            values.setdefault(row["site"], {}).setdefault(int(row["rounds"]), []).append(float(row["dice"]))
    return {
        site: [[rounds, fmean(dice)] for rounds, dice in sorted(points.items())]
        for site, points in sorted(values.items())
    }


def aligned(curves: Sequence[Curve]) -> tuple[list[float], list[list[float]]]:
    """The rounds that every curve has, and each curve's Dice there: a site may have failed to validate one."""
    tables = [dict(map(tuple, curve)) for curve in curves]
    rounds = sorted(set.intersection(*map(set, tables)))
    return rounds, [[values[number] for number in rounds] for values in tables]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of several curves, at the rounds that all have."""
    rounds, dice = aligned(curves)
    return [[number, fmean(values)] for number, values in zip(rounds, zip(*dice, strict=True), strict=True)]

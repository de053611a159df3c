"""How sure the order of methods is: every two of them, setting by setting, on the same test cases."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from fedpeft.spec.run import SETTINGS
from fedpeft.study.bootstrap import paired_difference
from fedpeft.study.cells import label
from fedpeft.study.evaluation import write_csv
from fedpeft.study.summary import Scored, at_home

FILE = "differences.csv"


def write_differences(scores: Scored, out: Path) -> None:
    """Write differences.csv; a file of an earlier comparison that had more methods goes where there is one alone."""
    rows = list(differences(scores))
    if rows:
        write_csv(out / FILE, rows)
    else:
        (out / FILE).unlink(missing_ok=True)


def differences(scores: Scored) -> Iterator[dict[str, Any]]:
    """Rows {"setting", "first", "second", "difference": first minus second, "low", "high": its 95 % interval}.

    Scores are means over the seeds that both have; local models count at home.

    Args:
        scores: of every cell.
    """
    labels = dict.fromkeys(label(cell.run) for cell in scores)
    for setting in SETTINGS:
        for first, second in combinations(labels, 2):
            mine, other = (
                at_home({cell: items for cell, items in scores.items() if label(cell.run) == name}, setting)
                for name in (first, second)
            )
            if mine and other:
                found = paired_difference(mine, other)
                yield {
                    "setting": setting, "first": first, "second": second,
                    "difference": round(found.mean, 6) + 0.0, "low": round(found.low, 6), "high": round(found.high, 6),
                }

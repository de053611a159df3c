"""How sure the order of methods is: every two of them, setting by setting, on the same test cases."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from fedpeft.config.run import SETTINGS
from fedpeft.study.apply.evaluation import write_csv
from fedpeft.study.plan.experiments import label
from fedpeft.study.results.bootstrap import paired_difference
from fedpeft.study.results.summary import Scored, at_home

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
        scores: of every experiment.
    """
    labels = dict.fromkeys(label(experiment.run) for experiment in scores)
    for setting in SETTINGS:
        for first, second in combinations(labels, 2):
            mine, other = (
                at_home(
                    {experiment: items for experiment, items in scores.items() if label(experiment.run) == name},
                    setting,
                )
                for name in (first, second)
            )
            if mine and other:
                found = paired_difference(mine, other)
                yield {
                    "setting": setting,
                    "first": first,
                    "second": second,
                    "difference": round(found.mean, 6) + 0.0,
                    "low": round(found.low, 6),
                    "high": round(found.high, 6),
                }

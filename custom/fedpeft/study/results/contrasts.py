"""The contrasts of all pairs of methods in each setting, on the same test cases, in every metric."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from fedpeft.config.run import SETTINGS
from fedpeft.study.apply.evaluation import write_csv
from fedpeft.study.plan.experiments import label
from fedpeft.study.results.bootstrap import paired_contrast
from fedpeft.study.results.metrics import by_metric
from fedpeft.study.results.summary import Scored, at_home

FILE = "contrasts.csv"


def write_contrasts(scores: Scored, out: Path) -> None:
    """Write contrasts.csv; with a single method, remove the file of an earlier comparison."""
    lines = list(contrasts(scores))
    if lines:
        write_csv(out / FILE, lines)
    else:
        (out / FILE).unlink(missing_ok=True)


def contrasts(scores: Scored) -> Iterator[dict[str, Any]]:
    """Yield {"setting", "first", "second", "difference": first minus second, "low", "high": its 95 % interval}.

    Scores are means over seeds. A local model counts only at the site that trained it. With further metrics, each has
    its contrasts and a line says its name as "metric".

    Args:
        scores: the scores of every experiment.
    """
    metrics: dict[str, Scored] = {}
    for experiment, items in scores.items():
        for name, values in by_metric(items, experiment.run).items():
            metrics[name] = {**metrics.get(name, {}), experiment: values}
    for name, mine in metrics.items():
        named = {"metric": name} if len(metrics) > 1 else {}
        yield from (named | line for line in _contrasts(mine))


def _contrasts(scores: Scored) -> Iterator[dict[str, Any]]:
    """The contrasts in one metric, the values of ``scores``."""
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
                found = paired_contrast(mine, other)
                yield {
                    "setting": setting,
                    "first": first,
                    "second": second,
                    "difference": round(found.mean, 6) + 0.0,
                    "low": round(found.low, 6),
                    "high": round(found.high, 6),
                }

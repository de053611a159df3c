"""The best validated model of a run, and when to stop waiting for a better one."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from fedpeft.config.run import Run

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Best:
    """The best validated model so far.

    Attributes:
        rounds: rounds that it has gone through.
        score: mean over the sites of the mean over a site's classes, 0 to 1.
    """

    rounds: int
    score: float


def scores_of(run: Run, reports: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Site -> class name -> validation score, out of what the sites report of a round or of a validation."""
    return {site: report.get(run.task.of_class, {}) for site, report in reports.items()}


def better(best: Best | None, rounds: int, scores: Scores) -> Best | None:
    """Return the better one of the best model so far and one that the sites have just validated.

    Args:
        best: None before the first validation.
        rounds: rounds that the validated model has gone through.
        scores: site -> class name -> mean score; a site without validation cases has none.
    """
    means = [fmean(values.values()) for values in scores.values() if values]
    if means and (best is None or fmean(means) > best.score):
        return Best(rounds, fmean(means))
    return best


def exhausted(best: Best | None, validated: int, patience: int) -> bool:
    """Whether a run may end before its last round: nothing better came for ``patience`` validated rounds.

    Args:
        best: the best model so far.
        validated: rounds that the model validated last has gone through.
        patience: 0: the run never ends early.
    """
    return bool(patience) and best is not None and validated - best.rounds >= patience

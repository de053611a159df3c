"""Select a run's best validated model, and decide when to stop early."""

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
        rounds: number of rounds after which the model was validated.
        score: mean over the sites of the mean over a site's classes, 0 to 1.
    """

    rounds: int
    score: float


def scores_of(run: Run, reports: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Site -> class name -> validation score, from the sites' reports of a round or of a validation."""
    return {site: report.get(run.task.of_class, {}) for site, report in reports.items()}


def better(best: Best | None, rounds: int, scores: Scores) -> Best | None:
    """Return the better of two models: the best so far and the one that the sites have just validated.

    Args:
        best: None before the first validation.
        rounds: number of rounds after which the model was validated.
        scores: site -> class name -> mean score; a site without validation cases has none.
    """
    means = [fmean(values.values()) for values in scores.values() if values]
    if means and (best is None or fmean(means) > best.score):
        return Best(rounds, fmean(means))
    return best


def exhausted(best: Best | None, validated: int, patience: int) -> bool:
    """Whether a run may end early: no model of the last ``patience`` validated rounds was better than the best.

    Args:
        best: the best model so far.
        validated: number of rounds after which the last validated model was validated.
        patience: number of rounds; 0 means that the run never ends early.
    """
    return bool(patience) and best is not None and validated - best.rounds >= patience

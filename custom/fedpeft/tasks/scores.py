"""Scores of cases, and their means: the same for every task."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class CaseScore:
    """How well a model did on one class in one case.

    Attributes:
        site, split, case, label: what was scored; ``label`` is the name of the class.
        value: the score, 0 to 1; ``fedpeft.config.tasks`` says what the task calls it.
        probabilities: of all classes in the order of the run's labels; empty for a task without probabilities.
    """

    site: str
    split: str
    case: str
    label: str
    value: float
    probabilities: tuple[float, ...] = ()


def class_means(scores: Iterable[CaseScore]) -> dict[str, float]:
    """Name of the class -> mean score of its cases; empty where no case was scored."""
    per_class: dict[str, list[float]] = {}
    for item in scores:
        per_class.setdefault(item.label, []).append(item.value)
    return {label: fmean(values) for label, values in per_class.items()}


def mean_score(scores: Iterable[CaseScore]) -> float:
    """The mean over the classes that occur of the mean over a class's cases.

    Raises:
        ValueError: there is no score.
    """
    means = class_means(scores)
    if not means:
        raise ValueError("no case was scored: the split is empty; give cases to it or choose another with --split")
    return fmean(means.values())

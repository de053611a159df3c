"""Scores of cases, and their means: the same for every task."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Scoring:
    """What is computed besides a task's own score, and who receives the predictions.

    Attributes:
        metrics: names of further metrics of a case and class; `fedpeft.tasks.base.Task.scoring` checks them.
        nsd_tolerance: largest surface distance that NSD counts as correct, in the task's unit of length; None if no
            metric uses it.
        keep: called with each case's name and `fedpeft.tasks.base.Prediction`, which is scored afterwards; only tasks
            whose predictions are files of their own call it.
    """

    metrics: tuple[str, ...] = ()
    nsd_tolerance: float | None = None
    keep: Callable[[str, Any], None] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The metrics, and the tolerance if one uses it; empty if there is no further metric."""
        tolerance = {} if self.nsd_tolerance is None else {"nsd_tolerance": self.nsd_tolerance}
        return {"metrics": list(self.metrics), **tolerance} if self.metrics else {}

    def within(self, computed: Mapping[str, Any]) -> bool:
        """Whether scores that were computed as ``computed``, another one's ``to_dict``, have all that this one asks."""
        alike = self.nsd_tolerance in (None, computed.get("nsd_tolerance"))
        return alike and set(self.metrics) <= set(computed.get("metrics", ()))


# The task's own score alone.
PLAIN = Scoring()


@dataclass(frozen=True)
class CaseScore:
    """How well a model did on one class in one case.

    Attributes:
        site, split, case, label: what was scored; ``label`` is the name of the class.
        value: the score, 0 to 1; ``fedpeft.config.tasks`` says what the task calls it.
        probabilities: of all classes in the order of the run's labels; empty for a task without probabilities.
        others: name of a further metric -> its value, finite, in the metric's own unit; lower may be better.
        empty: with further metrics, which of the two masks has no voxel of the class: "", "both", "label" or
            "prediction".
    """

    site: str
    split: str
    case: str
    label: str
    value: float
    probabilities: tuple[float, ...] = ()
    others: Mapping[str, float] = field(default_factory=dict)
    empty: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON; further metrics only where there are any."""
        values = asdict(self)
        return values if self.others else {key: values[key] for key in values if key not in ("others", "empty")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], metrics: Iterable[str] = ()) -> "CaseScore":
        """Make a score from ``to_dict``'s values, with these further metrics of those that it has."""
        kept = {name: values["others"][name] for name in metrics}
        empty = values["empty"] if kept else ""
        probabilities = tuple(values["probabilities"])
        return cls(**{**values, "probabilities": probabilities, "others": kept, "empty": empty})


def valued_by(scores: Iterable[CaseScore], metric: str) -> list[CaseScore]:
    """The same cases, with one of their further metrics as value."""
    return [replace(item, value=item.others[metric]) for item in scores]


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

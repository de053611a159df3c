"""The metrics of a set of scores: their titles, units and directions, means and intervals."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedpeft.config.run import Run
from fedpeft.study.results.bootstrap import mean_interval
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import CaseScore, Scoring, class_means, mean_score, valued_by


def headings(run: Run, scoring: Scoring) -> dict[str, dict[str, Any]]:
    """Metric -> {"title", "unit", "better": "higher" or "lower", "tolerance" if it has one}, the task's own first."""
    task = task_of(run)
    own = {"title": run.task.title, "unit": "", "better": "higher"}
    further = {name: task.metrics[name].to_dict(scoring, task.length) for name in scoring.metrics}
    return {run.task.metric: own, **further}


def by_metric(scores: Sequence[CaseScore], run: Run) -> dict[str, list[CaseScore]]:
    """Metric -> the same cases with its values, the task's own first; ``scores`` is not empty."""
    return {run.task.metric: list(scores)} | {name: valued_by(scores, name) for name in scores[0].others}


def means(scores: Sequence[CaseScore], run: Run) -> dict[str, Any]:
    """{"metrics": {name: {"mean", "classes": mean of each}}, "one_mask_empty"}; empty without further metrics."""
    if not scores[0].others:
        return {}
    values = by_metric(scores, run)
    found = {name: {"mean": mean_score(items), "classes": class_means(items)} for name, items in values.items()}
    return {"metrics": found, "one_mask_empty": one_empty(scores)}


def interval(scores: Iterable[CaseScore]) -> dict[str, float]:
    """{"mean": over the sites, "low", "high": its 95 % interval}; see ``bootstrap.mean_interval``."""
    found = mean_interval({(item.site, item.case, item.label): item.value for item in scores})
    return {"mean": found.mean, "low": found.low, "high": found.high}


def class_intervals(scores: Sequence[CaseScore]) -> dict[str, dict[str, float]]:
    """Class -> what ``interval`` finds for it."""
    labels = dict.fromkeys(item.label for item in scores)
    return {label: interval(item for item in scores if item.label == label) for label in labels}


def one_empty(scores: Iterable[CaseScore]) -> int:
    """Number of cases and classes of which one mask is empty and the other is not."""
    return sum(item.empty in ("label", "prediction") for item in scores)


def direction(heading: Mapping[str, Any]) -> str:
    """A metric's title with the better direction, for the heading of a table."""
    title = str(heading["title"])
    return f"{title[0].upper()}{title[1:]}, {heading['better']} is better"

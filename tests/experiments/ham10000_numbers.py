"""Numbers of the HAM10000 benchmark, each with its interval.

The balanced accuracy of all test images together is what slopes and differences are computed of: single sites have
classes of one or two images. Intervals come from drawing lesions of the same class anew, with replacement, the same
lesions for every method, partition and start: they speak of other patients, not of other trainings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedpeft.tasks.scores import CaseScore

RESAMPLES = 2_000
# (partition, start) -> method -> a number as found, then of every resample, (1 + resamples,).
Columns = Mapping[tuple[str, str], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Experiment:
    """One model and what it did on the test images.

    Attributes:
        partition: "iid", "natural", or "left out": every centre's images by the model that has not seen the centre.
        start: "random", "generic" or "medical".
        method: name of the method.
        setting: "federated", "local" (each image by its own site's model) or "centralized".
        seed: of splits and run.
        scores: of the test images.
    """

    partition: str
    start: str
    method: str
    setting: str
    seed: int
    scores: Sequence[CaseScore]


@dataclass(frozen=True)
class Interval:
    """A number and the 2.5 % and 97.5 % quantiles over resamples."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def columns_of(experiments: Sequence[Experiment], lesions: Mapping[str, str], resamples: int = RESAMPLES) -> Columns:
    """Balanced accuracies, the mean over seeds."""
    found: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for experiment in experiments:
        column = found.setdefault((experiment.partition, experiment.start), {})
        column.setdefault(experiment.method, []).append(
            balanced(experiment.scores, lesions, resamples, experiment.seed)
        )
    return {key: {name: np.mean(values, axis=0) for name, values in column.items()} for key, column in found.items()}


def balanced(scores: Iterable[CaseScore], lesions: Mapping[str, str], resamples: int, seed: int) -> np.ndarray:
    """The mean recall of the classes: as found, then with every class's lesions drawn anew, (1 + resamples,).

    The same lesions are drawn for the same seed and cases, whatever the scores.
    """
    hits: dict[str, dict[str, list[float]]] = {}
    for item in scores:
        hits.setdefault(item.label, {}).setdefault(lesions[item.case], []).append(item.value)
    generator, recalls = np.random.default_rng(seed), []
    for label in sorted(hits):
        groups = [hits[label][lesion] for lesion in sorted(hits[label])]
        counts = generator.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
        weights = np.vstack([np.ones(len(groups)), counts])
        recalls.append((weights @ [sum(group) for group in groups]) / (weights @ [len(group) for group in groups]))
    return np.mean(recalls, axis=0)


def slope(column: Mapping[str, np.ndarray], exchanged: Mapping[str, int]) -> Interval:
    """What ten times as many exchanged parameters bring, by least squares over the methods.

    Args:
        column: method -> balanced accuracy as found and of every resample.
        exchanged: method -> parameters.
    """
    decades = np.log10([exchanged[name] for name in column])
    centred = decades - decades.mean()
    return interval(centred @ np.stack(list(column.values())) / (centred @ centred))


def interval(values: np.ndarray) -> Interval:
    """Of a number as found, the first value, and of every resample."""
    return Interval(float(values[0]), *map(float, np.quantile(values[1:], [0.025, 0.975])))

"""The base class of tasks: it declares everything that differs between segmentation, classification and new tasks.

A new task is one subclass of `Task` and one entry in ``fedpeft.config.tasks``; ``fedpeft.tasks.registry.register``
makes it known. No other module branches on the task.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from torch import nn

from fedpeft.config.datasets import Preprocessing
from fedpeft.config.run import Run
from fedpeft.config.tasks import TaskEntry
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Site
from fedpeft.tasks.mask_metrics import NSD_TOLERANCE, Metric
from fedpeft.tasks.scores import PLAIN, CaseScore, Scoring
from fedpeft.tasks.types import Batch, Loss


@dataclass(frozen=True)
class Kind:
    """A kind of files that a task predicts from.

    Attributes:
        one, many: what people call one of them, and several.
        endings: of their names, in lower case.
    """

    one: str
    many: str
    endings: tuple[str, ...]


VOLUMES = Kind("a volume (NIfTI)", "volumes (NIfTI)", (".nii", ".nii.gz"))
IMAGES = Kind("an image (JPEG or PNG)", "images (JPEG or PNG)", (".jpg", ".jpeg", ".png"))
KINDS = (VOLUMES, IMAGES)


class TrainingData(Protocol):
    """A site's training data, in batches that depend on a seed alone."""

    def slices(self) -> int:
        """Number of slices of the training volumes, or of training images."""

    def steps(self) -> int:
        """Number of optimiser steps in an epoch."""

    def epoch(self, seed: int, order: Sequence[int] | None = None) -> Iterator[Batch]:
        """Yield one epoch's batches: those whose numbers ``order`` lists, in that order, or all of them."""


@dataclass(frozen=True)
class Written:
    """The content of a prediction's file, for programs and for people.

    Attributes:
        values: plain values, ready for JSON.
        sentence: the same in words, one line.
    """

    values: dict[str, Any]
    sentence: str


class Prediction(ABC):
    """A model's prediction for one input file."""

    @property
    @abstractmethod
    def value(self) -> tuple[np.ndarray, np.ndarray] | np.ndarray | dict[str, float]:
        """The prediction as plain values.

        A volume's mask and its affine, an image's mask, or the name of each class -> its probability.
        """

    @abstractmethod
    def write(self, out: Path) -> Written:
        """Write the prediction to ``out``, which has one of the task's endings; create the folder if it is missing."""


Data = TypeVar("Data", bound=TrainingData)
Cases = TypeVar("Cases")


class Task(ABC, Generic[Data, Cases]):
    """A task's training data, loss, predictions and scores.

    ``entry`` holds the names of the scores and of the metric, and the number of background outputs, for modules that do
    not import torch.

    Attributes:
        entry: the task in ``fedpeft.config.tasks.TASKS``.
        does: what a run does with its files, such as "segments".
        takes: the kind of these files.
        endings: file name endings that a prediction may have.
        figure: key of ``fedpeft.study.plots.overview.FIGURES``, which plots the predictions of compared models.
        measure_titles: name -> heading of those ``measures`` that are one number.
        metrics: further metrics of a case and class, by name.
        length: unit of the metrics that are lengths.
        kept_as: file name ending of predictions that ``fedpeft evaluate --save-predictions`` keeps; "" if the task's
            predictions are in evaluation.csv.
    """

    entry: ClassVar[TaskEntry]
    does: ClassVar[str]
    takes: ClassVar[Kind]
    endings: ClassVar[tuple[str, ...]]
    figure: ClassVar[str]
    measure_titles: ClassVar[Mapping[str, str]] = {}
    metrics: ClassVar[Mapping[str, Metric]] = {}
    length: ClassVar[str] = ""
    kept_as: ClassVar[str] = ""

    @abstractmethod
    def training_data(self, run: Run, site: Site, before_read: Callable[[], None], cache: Cache) -> Data:
        """Read a site's training cases.

        Args:
            run: gives image size, batch size and whatever else the task needs.
            site: the site whose cases are read.
            before_read: called before each case is read; what it raises ends the reading.
            cache: keeps what is derived from the files.

        Raises:
            FileNotFoundError, ValueError: there is no training case, or a file is faulty.
        """

    @abstractmethod
    def loss(self, run: Run, data: Data) -> Loss:
        """Return the run's loss at the site of ``data``: a function of the model's output and the labels."""

    @abstractmethod
    def read(
        self,
        run: Run,
        site: Site,
        split: str,
        preprocessing: Preprocessing,
        before_read: Callable[[], None] = lambda: None,
        cache: Cache | None = None,
    ) -> Cases:
        """Read the cases of a split, as ``score`` takes them.

        Args:
            run: gives the image size.
            site: the site whose cases are read.
            split: "training", "validation" or "test"; the split may be empty.
            preprocessing: how volumes are normalised.
            before_read: called before each case is read; what it raises ends the reading.
            cache: keeps what is derived from the files; with None, nothing outlives the returned cases.

        Raises:
            FileNotFoundError, ValueError: a file is missing or faulty.
        """

    @abstractmethod
    def unlabelled(self, cases: Cases) -> Iterator[str]:
        """Yield the names of the cases without ground truth."""

    @abstractmethod
    def score_labelled(
        self,
        model: nn.Module,
        cases: Cases,
        run: Run,
        labels: Mapping[int, str],
        where: tuple[str, str],
        should_stop: Callable[[], bool],
        scoring: Scoring,
    ) -> list[CaseScore]:
        """Score as ``score`` does, given a model in evaluation mode and cases with ground truth."""

    @abstractmethod
    def predict(self, model: nn.Module, image: Path, run: Run, preprocessing: Preprocessing) -> Prediction:
        """Predict for one file that belongs to no site.

        Args:
            model: the run's model, in evaluation mode.
            image: the input file.
            run: gives the image size and the names of the classes.
            preprocessing: how volumes are normalised; without a site, each is normalised by its own statistics.

        Raises:
            FileNotFoundError, ValueError: the file is missing or faulty.
        """

    def score(
        self,
        model: nn.Module,
        cases: Cases,
        run: Run,
        labels: Mapping[int, str],
        where: tuple[str, str],
        should_stop: Callable[[], bool] = lambda: False,
        scoring: Scoring = PLAIN,
    ) -> list[CaseScore]:
        """Score a model on cases.

        Args:
            model: the model; it is in evaluation mode during the call and in its former mode afterwards.
            cases: what ``read`` returned.
            run: the model's run.
            labels: index -> name of the class, including the background where there is one.
            where: (site, split), recorded in the scores.
            should_stop: asked before every forward pass.
            scoring: what is computed beside the task's own score, see `scoring`.

        Returns:
            Scores from 0 to 1 in the order of the cases.

        Raises:
            ValueError: a case has no label.
            Stopped: ``should_stop`` returned True.
        """
        if (case := next(self.unlabelled(cases), None)) is not None:
            raise ValueError(f"site {where[0]}: case {case} has no label; it can be inferred, not scored")
        with _evaluating(model):
            return self.score_labelled(model, cases, run, labels, where, should_stop, scoring)

    def score_site(
        self,
        model: nn.Module,
        site: Site,
        split: str,
        run: Run,
        preprocessing: Preprocessing,
        scoring: Scoring = PLAIN,
    ) -> list[CaseScore]:
        """Read one of a site's splits and score a model on it; see ``read`` and ``score``."""
        cases = self.read(run, site, split, preprocessing)
        return self.score(model, cases, run, site.labels, (site.name, split), scoring=scoring)

    def scoring(self, metrics: Collection[str] = (), nsd_tolerance: float | None = None) -> Scoring:
        """What to compute for these metrics; the task's own score is always computed and may be named too.

        Args:
            metrics: names of ``metrics`` or of the task's own metric.
            nsd_tolerance: above 0; None for `fedpeft.tasks.mask_metrics.NSD_TOLERANCE`.

        Raises:
            ValueError: the task has no such metric, or the tolerance is out of range or of no effect.
        """
        own, named = self.entry.metric, [name for name in self.metrics if name in metrics]
        if odd := [name for name in metrics if name not in (own, *self.metrics)]:
            known = ", ".join((own, *self.metrics, *self.measure_titles))
            always = "" if self.metrics else "; it reports them always, leave --metrics out"
            raise ValueError(f"{self.entry.name} has no metric {odd[0]!r}, only {known}{always}")
        tolerant = any(self.metrics[name].tolerant for name in named)
        if nsd_tolerance is not None and not tolerant:
            raise ValueError(f"--nsd-tolerance {nsd_tolerance:g} has no effect without nsd in --metrics")
        if nsd_tolerance is not None and not 0 < nsd_tolerance < float("inf"):
            raise ValueError(f"--nsd-tolerance is {nsd_tolerance:g}, expected a length above 0")
        return Scoring(tuple(named), (nsd_tolerance or NSD_TOLERANCE) if tolerant else None)

    def normalised_by(self, cases: Cases) -> str | None:
        """What normalised the cases: "site", "volume" or "constants"; None for a task without such statistics."""
        return None

    def measures(self, scores: Sequence[CaseScore], labels: Sequence[str]) -> dict[str, Any]:
        """Measures of a set of cases that no single case has, such as the AUROC.

        Args:
            scores: at least one score.
            labels: names of the classes in the order of the model's outputs.

        Returns:
            Measure -> number (None where undefined) or nested lists; empty for a task without such measures.
        """
        return {}

    def notes(self, run: Run) -> list[str]:
        """Short notes that ``fedpeft methods`` prints on the parts of the run's network that only this task has."""
        return []


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)

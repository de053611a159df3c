"""What a task is: everything that differs between segmentation, classification and tasks to come, in one class.

A new task is one subclass of `Task` and one entry in ``fedpeft.config.tasks``; ``fedpeft.tasks.registry.register``
makes it known. No other module asks which task a run has.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import nn

from fedpeft.config.datasets import Preprocessing
from fedpeft.config.run import Run
from fedpeft.config.tasks import TaskEntry
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Site
from fedpeft.tasks.scores import CaseScore
from fedpeft.tasks.types import Batch, Loss


class TrainingData(Protocol):
    """A site's training data: batches that a seed determines."""

    def steps(self) -> int:
        """Optimiser steps in every epoch."""

    def epoch(self, seed: int, order: Sequence[int] | None = None) -> Iterator[Batch]:
        """One epoch's batches: those in ``order``, or all of them."""


@dataclass(frozen=True)
class Written:
    """What a prediction's file says.

    Attributes:
        values: plain values, ready for JSON.
        sentence: the same for people.
    """

    values: dict[str, Any]
    sentence: str


class Prediction(ABC):
    """What a model found in one input file."""

    @abstractmethod
    def write(self, out: Path) -> Written:
        """Write it to ``out``, whose name has one of the task's endings; the folder is made."""


Data = TypeVar("Data", bound=TrainingData)
Cases = TypeVar("Cases")


class Task(ABC, Generic[Data, Cases]):
    """What a model is trained on, its loss, its predictions and their scores.

    The names of the scores and of the metric, and the number of background outputs, are in ``entry``: they are needed
    where torch is not.

    Attributes:
        entry: the task in ``fedpeft.config.tasks.TASKS``.
        endings: endings that a prediction's file may have.
        figure: key of ``fedpeft.study.plots.overview.FIGURES``, which shows what the models of a comparison find.
        measure_titles: name -> heading of those ``measures`` that are one number.
    """

    entry: ClassVar[TaskEntry]
    endings: ClassVar[tuple[str, ...]]
    figure: ClassVar[str]
    measure_titles: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def training_data(self, run: Run, site: Site, before_read: Callable[[], None], cache: Cache) -> Data:
        """Read a site's training cases.

        Args:
            run: gives image size, batch size and what else the task needs.
            site: whose cases.
            before_read: called before each case is read; what it raises ends the reading.
            cache: keeps what is derived from the files.

        Raises:
            FileNotFoundError, ValueError: there is no training case, or a file is faulty.
        """

    @abstractmethod
    def loss(self, run: Run, data: Data) -> Loss:
        """The run's loss at the site that has ``data``: a function of the model's output and the labels."""

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
            site: whose cases.
            split: "training", "validation" or "test"; it may be empty.
            preprocessing: how volumes are normalised.
            before_read: called before each case is read; what it raises ends the reading.
            cache: keeps what is derived from the files; None: nothing outlives the returned cases.

        Raises:
            FileNotFoundError, ValueError: a file is missing or faulty.
        """

    @abstractmethod
    def unlabelled(self, cases: Cases) -> Iterator[str]:
        """The names of the cases whose truth is not known."""

    @abstractmethod
    def score_labelled(
        self,
        model: nn.Module,
        cases: Cases,
        run: Run,
        labels: Mapping[int, str],
        where: tuple[str, str],
        should_stop: Callable[[], bool],
    ) -> list[CaseScore]:
        """As ``score``, with a model in evaluation mode and cases whose truth is known."""

    @abstractmethod
    def predict(self, model: nn.Module, image: Path, run: Run, preprocessing: Preprocessing) -> Prediction:
        """What a model finds in one file that belongs to no site.

        Args:
            model: of the run, in evaluation mode.
            image: the file.
            run: gives the image size and the names of the classes.
            preprocessing: how volumes are normalised; without a site, by their own statistics.

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
    ) -> list[CaseScore]:
        """Score a model on cases.

        Args:
            model: put into evaluation mode, and afterwards back into the mode it was in.
            cases: from ``read``.
            run: of the model.
            labels: index -> name of the class, the background's included where there is one.
            where: (site, split), kept in the scores.
            should_stop: asked before every forward pass.

        Returns:
            Scores from 0 to 1 in the order of the cases.

        Raises:
            ValueError: a case has no label.
            Stopped: ``should_stop`` said so.
        """
        if (case := next(self.unlabelled(cases), None)) is not None:
            raise ValueError(f"site {where[0]}: case {case} has no label; it can be inferred, not scored")
        with _evaluating(model):
            return self.score_labelled(model, cases, run, labels, where, should_stop)

    def score_site(
        self, model: nn.Module, site: Site, split: str, run: Run, preprocessing: Preprocessing
    ) -> list[CaseScore]:
        """Read one of a site's splits and score a model on it; see ``read`` and ``score``."""
        return self.score(model, self.read(run, site, split, preprocessing), run, site.labels, (site.name, split))

    def normalised_by(self, cases: Cases) -> str | None:
        """Whose statistics normalised the cases: "site" or "volume"; None for a task without such statistics."""
        return None

    def measures(self, scores: Sequence[CaseScore], labels: Sequence[str]) -> dict[str, Any]:
        """What only a set of cases has, beside the mean of its scores.

        Args:
            scores: at least one.
            labels: names of the classes in the order of the model's outputs.

        Returns:
            Measure -> number, None where it is not defined, or nested lists; empty for a task without such measures.
        """
        return {}

    def notes(self, run: Run) -> list[str]:
        """What ``fedpeft methods`` says about the run's network that only this task has, a few words each."""
        return []


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)

"""What a task trains on, its loss and its score: the only place where training differs between tasks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from fedpeft.config.datasets import Preprocessing
from fedpeft.config.run import Run
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Site
from fedpeft.tasks import classification, segmentation, volume_masks
from fedpeft.tasks.measures import measures
from fedpeft.tasks.scores import CaseScore
from fedpeft.tasks.types import Batch, Loss


class Epochs(Protocol):
    """A site's training data: batches that a seed determines."""

    def steps(self) -> int:
        """Optimiser steps in every epoch."""

    def epoch(self, seed: int, order: Sequence[int] | None = None) -> Iterator[Batch]:
        """One epoch's batches: those in ``order``, or all of them."""


@dataclass(frozen=True)
class Work:
    """A task's part of training and evaluation.

    Attributes:
        data: (run, site, before_read, cache) -> the site's training data; ``before_read`` is called before each case.
        loss: (run, those data) -> loss of the model's output and the labels.
        read: (run, site, split, preprocessing, before_read, cache) -> a split's cases; the cache may be left out.
        score: (model, these, run, labels, (site, split), should_stop) -> their scores.
        normalised: these -> whose statistics normalised them, "site" or "volume"; None where there are none.
        measures: (scores, names of the classes) -> what only a set of cases has, beside the mean score.
    """

    data: Callable[[Run, Site, Callable[[], None], Cache], Epochs]
    loss: Callable[[Run, Any], Loss]
    read: Callable[..., Any]
    score: Callable[[nn.Module, Any, Run, dict[int, str], tuple[str, str], Callable[[], bool]], list[CaseScore]]
    normalised: Callable[[Any], str | None] = lambda cases: None
    measures: Callable[[Sequence[CaseScore], Sequence[str]], dict[str, Any]] = lambda scores, labels: {}


WORK: dict[str, Work] = {
    "segmentation": Work(
        data=segmentation.stacks,
        loss=lambda run, data: segmentation.make_loss(run),
        read=lambda run, site, split, preprocessing, before_read, cache=None: segmentation.read_volumes(
            site, split, preprocessing, before_read, cache
        ),
        score=volume_masks.score,
        normalised=lambda cases: cases[0][1].normalised,
    ),
    "classification": Work(
        data=classification.pictures,
        loss=classification.make_loss,
        read=lambda run, site, split, preprocessing, before_read, cache=None: classification.read(
            site, split, run, before_read, cache
        ),
        score=classification.score,
        measures=measures,
    ),
}


def score_site(model: nn.Module, site: Site, split: str, run: Run, preprocessing: Preprocessing) -> list[CaseScore]:
    """Read one of a site's splits and score a model on it."""
    work = WORK[run.task.name]
    cases = work.read(run, site, split, preprocessing, lambda: None)
    return work.score(model, cases, run, site.labels, (site.name, split), lambda: False)

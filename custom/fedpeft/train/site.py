"""One site's part of a run: receive tensors, train a round, send the difference. The same for every setting."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count, islice
from math import ceil
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import Module

from fedpeft.data.datalist import Site
from fedpeft.data.stacks import StackData
from fedpeft.data.volumes import Volume, read_volume
from fedpeft.model.parcel import trainable
from fedpeft.spec.datasets import DATASETS, Preprocessing
from fedpeft.spec.run import Run, seed_of
from fedpeft.train.evaluate import CaseScore, score
from fedpeft.train.loop import Batch, Stopped, make_loss, train_epoch
from fedpeft.train.optimiser import OptimiserState, StateFolder, make_optimiser, step_size


@dataclass(frozen=True)
class Update:
    """What a site sends after a round.

    Attributes:
        difference: trained minus received tensors, float32 on the CPU.
        cases: training cases, the site's weight.
        loss: mean over the round's steps.
        seconds: spent training.
    """

    difference: dict[str, Tensor]
    cases: int
    loss: float
    seconds: float


class SiteTrainer:
    """Trains and validates one site's data.

    Args:
        run: what to train.
        site: name, labels and cases.
        model: the initial model; its trainable tensors are overwritten by what is received.
        state: where optimiser moments are kept.
        device: torch device.
        should_stop: asked before every step and every forward pass.

    Raises:
        ValueError: the site's labels do not fit the run, or it has no training case.
    """

    def __init__(
        self, run: Run, site: Site, model: Module, state: Path, device: str = "cpu",
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if len(site.labels) != run.classes + 1:
            raise ValueError(
                f"site {site.name}: its datalist has the labels {site.labels}, the run expects {run.classes} classes "
                f"besides background; use the data set that the job names, or render the job with --classes"
            )
        if run.labels and tuple(site.labels.values())[1:] != run.labels:
            raise ValueError(
                f"site {site.name}: its datalist has the labels {site.labels}, the run has {run.label_table}; the same "
                f"number must mean the same class at every site"
            )
        for case in (*site.cases("training"), *site.splits["validation"]):
            if case.label is None:
                raise ValueError(f"site {site.name}: case {case.case} has no label; give it one or move it to test")
        self.run, self.site, self.should_stop = run, site, should_stop
        self.model = model.to(usable(device)).train()
        self.parameters = trainable(self.model)
        self.state = StateFolder(state / site.name)
        self._loss = make_loss(run)
        self._preprocessing = DATASETS[run.dataset].preprocessing
        self._volumes: dict[str, list[tuple[str, Volume]]] = {}

    @cached_property
    def _data(self) -> StackData:
        return StackData(
            self.site.splits["training"], self.site.labels, self._preprocessing, self.run.side, batch=self.run.batch,
            stack=self.run.stack, stride=self.run.stride, negatives=self.run.negatives, before_read=self._go_on,
        )

    def _go_on(self) -> None:
        """Raise Stopped when asked to stop."""
        if self.should_stop():
            raise Stopped(f"site {self.site.name}: stopped while reading")

    def train(self, received: dict[str, Tensor], round_: int) -> Update:
        """Train one round.

        Args:
            received: the round's parcel, decoded and checked.
            round_: 0-based.

        Raises:
            Stopped: asked to stop; the state on disk is that of the round before.
            ValueError: the loss is not finite, or a file of the site is faulty.
        """
        started = time.monotonic()
        self.load(received)
        optimiser = make_optimiser(self.run, self.parameters)
        if (before := self.state.before(round_)) is not None:
            before.restore(optimiser, self.parameters, {key: self.run.method_row.rule_of(key) for key in received})
        steps = ceil(self.run.local_epochs * self._data.steps())
        sizes = partial(self._step_size, round_, steps)
        batches = islice(self._batches(round_), steps)
        with _seeded(seed_of(self.run.seed, self.site.name, round_, "dropout"), self.parameters):
            losses = train_epoch(self.model, optimiser, self._loss, batches, sizes, self.should_stop)
        self.state.keep(round_, OptimiserState.of(optimiser, self.parameters))
        difference = {key: self.parameters[key].detach().cpu() - received[key] for key in received}
        return Update(difference, len(self.site.splits["training"]), fmean(losses), time.monotonic() - started)

    def _batches(self, round_: int) -> Iterator[Batch]:
        """One epoch after the other, without end."""
        for epoch in count():
            yield from self._data.epoch(seed_of(self.run.seed, self.site.name, round_, epoch))

    def _step_size(self, round_: int, steps: int, index: int) -> float:
        return step_size(self.run, (round_ + (index + 0.5) / steps) / self.run.rounds)

    def validate(self, received: dict[str, Tensor], split: str = "validation") -> list[CaseScore]:
        """Dice of the received model on one of the site's splits."""
        self.load(received)
        if split not in self._volumes:
            self._volumes[split] = read_volumes(self.site, split, self._preprocessing, self._go_on)
        return score(
            self.model, self._volumes[split], self.run, self.site.labels, (self.site.name, split), self.should_stop
        )

    @torch.no_grad()
    def load(self, received: dict[str, Tensor]) -> None:
        """Overwrite the model's trainable tensors."""
        for key, tensor in received.items():
            self.parameters[key].copy_(tensor)


@contextmanager
def _seeded(seed: int, parameters: dict[str, Tensor]) -> Iterator[None]:
    """Dropout draws from torch's own generators: the site's seed decides what, and nobody else's draws change."""
    devices = {tensor.device for tensor in parameters.values() if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def usable(device: str) -> torch.device:
    """The torch device of that name.

    Raises:
        RuntimeError: this machine does not have it; training elsewhere instead would hide that.
    """
    wanted = torch.device(device)
    count = torch.cuda.device_count() if wanted.type == "cuda" else 1
    if (wanted.index or 0) >= count:
        raise RuntimeError(
            f"device {device!r} asked for, but this machine shows {count} CUDA devices to torch {torch.__version__}: "
            f"correct \"device\" in the site file, or mend driver and CUDA_VISIBLE_DEVICES"
        )
    return wanted


def read_volumes(
    site: Site, split: str, preprocessing: Preprocessing, before_read: Callable[[], None] = lambda: None
) -> list[tuple[str, Volume]]:
    """A split's volumes by case, normalised as the data set says; ``before_read`` is called before each."""
    volumes = []
    for case in site.splits[split]:
        before_read()
        volumes.append((case.case, read_volume(case, site.labels, preprocessing)))
    return volumes

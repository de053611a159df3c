"""A site's part of a run, the same in every setting and task: receive tensors, train a round, send the update."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from fedpeft.algebra.feedback import fed_back
from fedpeft.common.devices import usable
from fedpeft.common.precision import computing
from fedpeft.config.run import Run
from fedpeft.config.seeds import seed_of
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Site
from fedpeft.models.frozen import encoder_is_frozen
from fedpeft.models.payload import is_trained, trainable
from fedpeft.tasks.base import TrainingData
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import CaseScore
from fedpeft.tasks.types import Loss, Stopped
from fedpeft.training.client.global_tensors import GlobalTensors
from fedpeft.training.client.labels import check_labelled, check_labels
from fedpeft.training.client.sampling import RoundSampler
from fedpeft.training.client.state import OptimiserState, StateFolder
from fedpeft.training.engine.embeddings import FrozenEncoder
from fedpeft.training.engine.loop import train_epoch
from fedpeft.training.engine.optimiser import AdamW, make_optimiser
from fedpeft.training.engine.prefetch import prefetch
from fedpeft.training.engine.schedule import learning_rate_of


@dataclass(frozen=True)
class Update:
    """A site's update after a round.

    Attributes:
        tensors: path -> trained minus received tensor plus the residual of earlier rounds, float32 on the CPU, as the
            server will decode it.
        cases: number of training cases, by which the server may weight the site.
        slices: number of their slices, or of their images; the server may weight by it instead.
        loss: mean over the round's steps.
        seconds: time spent training.
    """

    tensors: dict[str, Tensor]
    cases: int
    slices: int
    loss: float
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        """The numbers that go to the server beside the tensors."""
        return {"cases": self.cases, "slices": self.slices, "loss": self.loss, "seconds": self.seconds}


class SiteTrainer:
    """Trains and validates one site's data.

    Args:
        run: what to train.
        site: its name, labels and cases.
        model: the initial model; its trainable tensors are overwritten by the received ones.
        state: folder of the run's optimiser moments, in which the site has its own folder.
        device: torch device.
        should_stop: asked before every step and every forward pass.
        cache: keeps what is derived from the site's files; None makes a new one for this trainer.

    Attributes:
        parameters: path -> parameter, for everything that the method may train.

    Raises:
        ValueError: the site's labels do not fit the run, or it has no training case.
        RuntimeError: this machine lacks the device, or the device does not support the run's precision.
    """

    def __init__(
        self,
        run: Run,
        site: Site,
        model: Module,
        state: Path,
        device: str = "cpu",
        should_stop: Callable[[], bool] = lambda: False,
        cache: Cache | None = None,
    ) -> None:
        check_labels(run, site)
        check_labelled(site)
        self.run, self.site, self.should_stop = run, site, should_stop
        self.model = model.to(usable(device)).train()
        self._computing = partial(computing, run.training.precision, torch.device(device))
        # Refuses a device without the precision now, not after an hour of reading.
        self._computing()
        self.parameters = trainable(self.model)
        self.state = StateFolder(state / site.name)
        initial = {path: parameter.detach().cpu().clone() for path, parameter in self.parameters.items()}
        self._global = GlobalTensors(run, initial, self.state)
        self._task = task_of(run)
        self._cache = cache or Cache()
        self._frozen = FrozenEncoder(self.model, self._cache) if encoder_is_frozen(self.model) else None
        self._network = self._frozen or self.model
        self._read: dict[str, Any] = {}

    def train(self, received: Mapping[str, Tensor], round_: int) -> Update:
        """Train one round.

        Args:
            received: the round's download, decoded and checked.
            round_: 0-based.

        Raises:
            Stopped: ``should_stop`` returned True; the state on disk is that of the round before.
            StaleSiteError: see ``load``.
            ValueError: the loss is not finite, or a file of the site is faulty.
        """
        started = time.monotonic()
        self.load(received, round_)
        parameters = self._trained_in(round_)
        optimiser = make_optimiser(self.run, parameters)
        before = self.state.before(round_)
        residual: dict[str, Tensor] = {}
        if before is not None:
            rules = {path: self.run.method.rule_of(path) for path in parameters}
            before.restore(optimiser, parameters, rules)
            residual = before.pending(parameters, rules)
        losses = self._epochs(optimiser, parameters.values(), round_)
        update = {path: tensor.detach().cpu() - self._global.tensors[path] for path, tensor in parameters.items()}
        sent, residual = fed_back(update, residual, self.run.federation.codec)
        state = replace(OptimiserState.of(optimiser, parameters), residual=residual)
        self.state.keep(round_, state.after(before))
        cases, slices = len(self.site.splits["training"]), self._data.slices()
        return Update(sent, cases, slices, fmean(losses), time.monotonic() - started)

    def validate(self, received: Mapping[str, Tensor], round_: int, split: str = "validation") -> list[CaseScore]:
        """Score the model that enters a round on one of the site's splits.

        Args:
            received: the round's download, decoded and checked.
            round_: 0-based.
            split: the split whose cases are scored; they are read once and kept.

        Raises:
            Stopped: ``should_stop`` returned True.
            StaleSiteError: see ``load``.
            ValueError: a case has no label, or a file of the site is faulty.
        """
        self.load(received, round_)
        if split not in self._read:
            self._read[split] = self._task.read(
                self.run, self.site, split, self.run.preprocessing, self._go_on, self._cache
            )
        cases, where = self._read[split], (self.site.name, split)
        with self._computing():
            return self._task.score(self._network, cases, self.run, self.site.labels, where, self.should_stop)

    def load(self, received: Mapping[str, Tensor], round_: int) -> None:
        """Overwrite the model's trainable tensors with the global ones.

        Args:
            received: the round's download; all other tensors are those of earlier rounds.
            round_: 0-based.

        Raises:
            StaleSiteError: the site missed a round and lacks some of the other tensors.
        """
        self._global.receive(received, round_)
        with torch.no_grad():
            for path, tensor in self._global.tensors.items():
                self.parameters[path].copy_(tensor)

    def _trained_in(self, round_: int) -> dict[str, Parameter]:
        """The tensors that the round trains; the others get no gradient."""
        for path, parameter in self.parameters.items():
            parameter.requires_grad_(is_trained(self.run, path, round_))
        return {path: parameter for path, parameter in self.parameters.items() if parameter.requires_grad}

    def _epochs(self, optimiser: AdamW, parameters: Iterable[Parameter], round_: int) -> list[float]:
        """Do the round's steps; return the loss of each."""
        epoch_steps = self._data.steps()
        steps = ceil(self.run.training.local_epochs * epoch_steps)

        def rate_at(index: int) -> float:
            return learning_rate_of(self.run, round_, index, steps, epoch_steps)

        with self._computing():
            self._sampler.encode(round_, self._go_on)
        dropout = _seeded(seed_of(self.run.training.seed, self.site.name, round_, "dropout"), parameters)
        with closing(prefetch(islice(self._sampler.batches(round_), steps))) as batches, dropout:
            return train_epoch(
                self._network, optimiser, self._loss, batches, rate_at, self.should_stop, self.run.training.precision
            )

    @cached_property
    def _data(self) -> TrainingData:
        return self._task.training_data(self.run, self.site, self._go_on, self._cache)

    @cached_property
    def _sampler(self) -> RoundSampler:
        return RoundSampler(self.run, self.site.name, self._data, self._frozen)

    @cached_property
    def _loss(self) -> Loss:
        return self._task.loss(self.run, self._data)

    def _go_on(self) -> None:
        """Raise Stopped if ``should_stop`` returns True."""
        if self.should_stop():
            raise Stopped(f"site {self.site.name}: stopped while reading")


@contextmanager
def _seeded(seed: int, parameters: Iterable[Tensor]) -> Iterator[None]:
    """Seed torch's generators, which dropout uses, inside the block; restore their state after it."""
    devices = {tensor.device for tensor in parameters if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield

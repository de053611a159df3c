"""One site's part of a run: receive tensors, train a round, send the difference. Every setting and task."""

import time
from collections.abc import Callable, Iterator
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
from fedpeft.common.precision import computing
from fedpeft.config.datasets import DATASETS
from fedpeft.config.run import Run
from fedpeft.config.seeds import seed_of
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Site
from fedpeft.models.frozen import encoder_is_frozen
from fedpeft.models.payload import is_trained, last_trained, trainable
from fedpeft.tasks.base import WORK, Epochs
from fedpeft.tasks.scores import CaseScore
from fedpeft.tasks.types import Loss, Stopped
from fedpeft.training.client.sampling import RoundSampler
from fedpeft.training.engine.embeddings import FrozenEncoder
from fedpeft.training.engine.loop import train_epoch
from fedpeft.training.engine.optimiser import OptimiserState, StateFolder, learning_rate_at, make_optimiser
from fedpeft.training.engine.prefetch import prefetch


@dataclass(frozen=True)
class Update:
    """What a site sends after a round.

    Attributes:
        difference: trained minus received tensors with what the codec kept back in earlier rounds, float32 on the CPU;
            rounded as the codec will send it, so that the site knows what it owes from now on.
        cases: training cases, the site's weight.
        loss: mean over the round's steps.
        seconds: spent training.
    """

    difference: dict[str, Tensor]
    cases: int
    loss: float
    seconds: float


class StaleSiteError(Exception):
    """The site has missed a round and lacks tensors that later ones do not bring; the message may leave the site."""


class SiteTrainer:
    """Trains and validates one site's data.

    Args:
        run: what to train.
        site: name, labels and cases.
        model: the initial model; its trainable tensors are overwritten by what is received.
        state: where optimiser moments are kept.
        device: torch device.
        should_stop: asked before every step and every forward pass.
        cache: where what is derived from the site's files is kept; None: a new one, for this trainer alone.

    Raises:
        ValueError: the site's labels do not fit the run, or it has no training case.
        RuntimeError: this machine has no such device, or the device lacks the run's precision.
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
        _refuse_labels(run, site)
        self.run, self.site, self.should_stop = run, site, should_stop
        self.model = model.to(usable(device)).train()
        self._computing = partial(computing, run.training.precision, torch.device(device))
        # Refused here if the device lacks it, and not after an hour's reading.
        self._computing()
        self.parameters = trainable(self.model)
        self.state = StateFolder(state / site.name)
        self._work = WORK[run.task.name]
        self._preprocessing = DATASETS[run.data.dataset].preprocessing
        self._cache = cache or Cache()
        self._frozen = FrozenEncoder(self.model, self._cache) if encoder_is_frozen(self.model) else None
        self._network = self._frozen or self.model
        self._read: dict[str, Any] = {}
        # The global tensors as this site knows them, and the round in which each was received.
        self._global = {path: tensor.detach().cpu().clone() for path, tensor in self.parameters.items()}
        self._received = dict.fromkeys(self._global, 0)
        if run.blocks and (kept := self.state.kept_global()) is not None:
            self._global, self._received = kept

    @cached_property
    def _data(self) -> Epochs:
        return self._work.data(self.run, self.site, self._go_on, self._cache)

    @cached_property
    def _sampler(self) -> RoundSampler:
        return RoundSampler(self.run, self.site.name, self._data, self._frozen)

    @cached_property
    def _loss(self) -> Loss:
        return self._work.loss(self.run, self._data)

    def _go_on(self) -> None:
        """Raise Stopped when asked to stop."""
        if self.should_stop():
            raise Stopped(f"site {self.site.name}: stopped while reading")

    def train(self, received: dict[str, Tensor], round_: int) -> Update:
        """Train one round.

        Args:
            received: the round's payload, decoded and checked.
            round_: 0-based.

        Raises:
            Stopped: asked to stop; the state on disk is that of the round before.
            ValueError: the loss is not finite, or a file of the site is faulty.
        """
        started = time.monotonic()
        self.load(received, round_)
        mine = self._training(round_)
        optimiser = make_optimiser(self.run, mine)
        before = self.state.before(round_)
        residual: dict[str, Tensor] = {}
        if before is not None:
            rules = {path: self.run.method.rule_of(path) for path in mine}
            before.restore(optimiser, mine, rules)
            residual = before.pending(mine, rules)
        steps = ceil(self.run.training.local_epochs * self._data.steps())
        sizes = partial(self._learning_rate_at, round_, steps)
        with self._computing():
            self._sampler.encode(round_, self._go_on)
        dropout = _seeded(seed_of(self.run.training.seed, self.site.name, round_, "dropout"), mine)
        with closing(prefetch(islice(self._sampler.batches(round_), steps))) as batches, dropout:
            losses = train_epoch(
                self._network, optimiser, self._loss, batches, sizes, self.should_stop, self.run.training.precision
            )
        difference = {path: tensor.detach().cpu() - self._global[path] for path, tensor in mine.items()}
        sent, residual = fed_back(difference, residual, self.run.federation.codec)
        self.state.keep(round_, replace(OptimiserState.of(optimiser, mine), residual=residual).after(before))
        return Update(sent, len(self.site.splits["training"]), fmean(losses), time.monotonic() - started)

    def _training(self, round_: int) -> dict[str, Parameter]:
        """The tensors that the round trains; no gradient is computed for the others."""
        for path, parameter in self.parameters.items():
            parameter.requires_grad_(is_trained(self.run, path, round_))
        return {path: parameter for path, parameter in self.parameters.items() if parameter.requires_grad}

    def _learning_rate_at(self, round_: int, steps: int, index: int) -> float:
        return learning_rate_at(self.run, (round_ + (index + 0.5) / steps) / self.run.federation.rounds)

    def validate(self, received: dict[str, Tensor], round_: int, split: str = "validation") -> list[CaseScore]:
        """Scores of the model that enters a round on one of the site's splits."""
        self.load(received, round_)
        if split not in self._read:
            reading = self.run, self.site, split, self._preprocessing, self._go_on, self._cache
            self._read[split] = self._work.read(*reading)
        where = (self.site.name, split)
        cases = self._read[split]
        with self._computing():
            return self._work.score(self._network, cases, self.run, self.site.labels, where, self.should_stop)

    def load(self, received: dict[str, Tensor], round_: int) -> None:
        """Overwrite the model's trainable tensors by the global ones.

        Args:
            received: the round's download; the others are known from earlier rounds.
            round_: 0-based.

        Raises:
            Behind: others are not known, since the site has missed a round.
        """
        self._global |= received
        self._received |= dict.fromkeys(received, round_)
        if self.run.blocks:
            self.state.keep_global(self._global, self._received)
            self._refuse_gaps(received, round_)
        with torch.no_grad():
            for path, tensor in self._global.items():
                self.parameters[path].copy_(tensor)

    def _refuse_gaps(self, received: dict[str, Tensor], round_: int) -> None:
        for path in self._global.keys() - received.keys():
            trained = last_trained(self.run, path, round_)
            if trained is not None and self._received[path] <= trained:
                raise StaleSiteError(
                    f"this site did not receive what round {trained} made of {path!r}; it takes part again once the "
                    f"drawn blocks have brought everything that it missed"
                )


def _refuse_labels(run: Run, site: Site) -> None:
    """Raise ValueError unless the site's labels are the run's and its cases have one."""
    if site.task != run.task.name:
        raise ValueError(f"site {site.name}: its datalist is for {site.task}, the run is {run.task.name}")
    if len(site.labels) != run.outputs:
        besides = " besides background" if run.task.background else ""
        raise ValueError(
            f"site {site.name}: its datalist has the labels {site.labels}, the run expects {run.data.classes} classes"
            f"{besides}; use the data set that the job names, or render the job with --classes"
        )
    if run.data.labels and site.labels != run.label_table:
        raise ValueError(
            f"site {site.name}: its datalist has the labels {site.labels}, the run has {run.label_table}; the same "
            f"number must mean the same class at every site"
        )
    for case in (*site.cases("training"), *site.splits["validation"]):
        if not case.labelled:
            raise ValueError(f"site {site.name}: case {case.case} has no label; give it one or move it to test")


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
            f'correct "device" in the site file, or mend driver and CUDA_VISIBLE_DEVICES'
        )
    return wanted

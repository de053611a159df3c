"""Learning rates of the HAM10000 benchmark: one a method, chosen on the validation images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from ham10000_clock import Clock
from in_process import federate

from fedpeft.common.files import read_json, write_json
from fedpeft.config.datasets import DATASETS
from fedpeft.config.run import Run
from fedpeft.data.datalist import read_sites
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import mean_score

# Multiples of a method's own learning rate.
FACTORS = (0.4, 1.0, 2.5)


@dataclass(frozen=True)
class Try:
    """One learning rate of one method, from the generic model."""

    run: Run
    data: Path
    out: Path

    @property
    def file(self) -> Path:
        """Where the result is kept."""
        return self.out / f"{self.run.model.method}-{self.run.training.learning_rate:.2e}.json"


def choose(start: Run, methods: Sequence[str], data: Path, out: Path, workers: int) -> dict[str, float]:
    """Method -> the learning rate whose federation is best on all sites' validation images together.

    Args:
        start: a run of any method with all other fields as in the benchmark.
        methods: names of methods.
        data: folder of sites.
        out: where results are kept; those that are there are not repeated.
        workers: federations at a time.
    """
    items = list(_tries(start, methods, data, out))
    clock = Clock("learning rates", len(items))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        for item, _ in zip(items, executor.map(_attempt, items), strict=True):
            clock.tick(item.file.stem)
    best: dict[str, tuple[float, float]] = {}
    for item in items:
        found = read_json(item.file)["balanced_accuracy"], item.run.training.learning_rate
        best[item.run.model.method] = max(best.get(item.run.model.method, (-1.0, 0.0)), found)
    return {name: rate for name, (_, rate) in best.items()}


def _tries(start: Run, methods: Sequence[str], data: Path, out: Path) -> Iterator[Try]:
    for name in methods:
        run = start.with_(method=name, learning_rate=0.0)
        yield from (Try(run.with_(learning_rate=factor * run.training.learning_rate), data, out) for factor in FACTORS)


def _attempt(item: Try) -> None:
    """Train a federation, score the validation images, keep the result."""
    if item.file.exists():
        return
    torch.set_num_threads(1)
    run, sites = item.run, read_sites(item.data)
    model = federate(run, sites, shipped(run.backbone), item.file.with_suffix(".state"))
    preprocessing = DATASETS[run.data.dataset].preprocessing
    task = task_of(run)
    scores = [score for site in sites for score in task.score_site(model, site, "validation", run, preprocessing)]
    write_json(item.file, {"balanced_accuracy": mean_score(scores)})

"""Settings side by side: local, centralized and federated training of a method on one folder of sites.

All settings run the same loop with the same number of rounds; the federated one goes through FLARE's simulator. A cell
that has finished is not repeated, so an interrupted comparison goes on where it was.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from fedpeft.data.datalist import DATALIST, Site, pool, read_sites
from fedpeft.model.checkpoint import sha256_of
from fedpeft.model.initial import build
from fedpeft.spec.datasets import DATASETS
from fedpeft.spec.jobs import JOBS, Job, policy, write
from fedpeft.spec.run import Run
from fedpeft.study.results import write_results
from fedpeft.study.simulate import simulate
from fedpeft.train.alone import train_alone
from fedpeft.train.evaluate import CaseScore, score
from fedpeft.train.files import read_json, write_json
from fedpeft.train.run_folder import DESCRIPTION, RunFolder
from fedpeft.train.site import read_volumes
from fedpeft.train.site_file import register

SPLIT = "test"
MADE_FROM = "made_from.json"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a comparison is made of.

    Attributes:
        data: folder of sites.
        out: where cells and results go.
        checkpoint: the backbone's weights.
        seconds: limit for one run of the simulator.
        device: torch device of every training.
        split: whose cases are tested.
    """

    data: Path
    out: Path
    checkpoint: Path
    seconds: float
    device: str = "cpu"
    split: str = SPLIT


@dataclass(frozen=True)
class Cell:
    """One training: a run in a setting; ``site`` is empty unless the setting is local."""

    run: Run
    setting: str
    site: str = ""

    def folder(self, out: Path) -> Path:
        """Where the cell's files are."""
        return out / self.run.method / f"seed-{self.run.seed}" / self.setting / self.site

    @property
    def key(self) -> tuple[str, int, str, str]:
        """(method, seed, setting, site)."""
        return self.run.method, self.run.seed, self.setting, self.site

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.run.method}, seed {self.run.seed}, {self.setting}{f' {self.site}' if self.site else ''}"


def recipe(data: Path) -> Run:
    """The run that a folder of sites starts from: the recipe of its data set's job, with the data's classes.

    Raises:
        ValueError: the folder's data set has no job.
    """
    site = read_sites(data)[0]
    name = site.dataset if site.dataset in DATASETS else "folder"
    for row in JOBS.values():
        if row.run.dataset == name:
            return row.run.with_(classes=site.classes, labels=tuple(site.labels.values())[1:])
    raise ValueError(f"{data}: no job has the data set {name!r}; known: {', '.join(JOBS)}")


def compare(plan: Plan, runs: list[Run], settings: list[str], report: Report) -> dict[str, Any]:
    """Train and test every cell; write results.json, cases.csv and the table.

    Args:
        plan: data, output and limits.
        runs: one for each method and seed.
        settings: of "local", "federated", "centralized".
        report: called with lines for people.

    Returns:
        What results.json holds, see ``fedpeft.study.results``.
    """
    sites = read_sites(plan.data)
    for site in sites:
        site.cases(plan.split)
    runs = list(dict.fromkeys(runs))
    cells = [cell for run in runs for setting in dict.fromkeys(settings) for cell in _cells(run, setting, sites)]
    # One more than there are cores: trainings are of unequal length.
    workers = min((os.cpu_count() or 1) + 1, len(cells))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as executor:
        alone = {executor.submit(_train_alone, plan, cell): cell for cell in cells if cell.setting != "federated"}
        started = time.monotonic()
        for future, cell in alone.items():
            future.result()
            report(f"trained {cell.name} ({time.monotonic() - started:.0f} s)")
        for cell in cells:
            if cell.setting == "federated":
                _train_federated(plan, cell, sites, report)
        tested = {cell: executor.submit(_test, plan, cell) for cell in [Cell(run, "before") for run in runs] + cells}
        scores = {cell: future.result() for cell, future in tested.items()}
    return write_results(plan.out, plan.data, runs, {cell.key: items for cell, items in scores.items()})


def _cells(run: Run, setting: str, sites: list[Site]) -> Iterator[Cell]:
    if setting == "local":
        yield from (Cell(run, setting, site.name) for site in sites)
    else:
        yield Cell(run, setting)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _finished(plan: Plan, cell: Cell) -> bool:
    """Whether the cell is done, with these data and this checkpoint; anything else that lies there is removed."""
    folder = cell.folder(plan.out)
    made_from = {"data": _fingerprint(plan.data), "checkpoint": sha256_of(plan.checkpoint)}
    if (folder / "run" / DESCRIPTION).is_file():
        found = RunFolder(folder / "run")
        if (
            found.description["status"] == "finished" and found.run == cell.run
            and read_json(folder / MADE_FROM) == made_from
        ):
            return True
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / MADE_FROM, made_from)
    return False


def _fingerprint(data: Path) -> str:
    """SHA-256 of the datalists and of the names, sizes and times of all files: seen without reading the images."""
    sha = hashlib.sha256()
    for file in sorted(data.rglob("*")):
        if file.is_file():
            status = file.stat()
            sha.update(f"{file.relative_to(data)} {status.st_size} {status.st_mtime_ns}\n".encode())
            sha.update(file.read_bytes() if file.name == DATALIST else b"")
    return sha.hexdigest()


def _train_alone(plan: Plan, cell: Cell) -> None:
    if _finished(plan, cell):
        return
    sites = read_sites(plan.data)
    site = pool(sites) if cell.setting == "centralized" else next(site for site in sites if site.name == cell.site)
    folder = cell.folder(plan.out)
    train_alone(cell.run, site, plan.checkpoint, folder / "run", cell.setting, lambda record: None, plan.device)


def _train_federated(plan: Plan, cell: Cell, sites: list[Site], report: Report) -> None:
    if _finished(plan, cell):
        report(f"kept {cell.name}: it has finished before")
        return
    folder = cell.folder(plan.out)
    workspace = make_workspace(folder / "workspace", plan, cell.run)
    job = write(Job(f"{cell.run.method}_{cell.run.dataset}", cell.run, min_sites=len(sites)), folder / "job")
    started = time.monotonic()
    # With fewer threads than sites the simulator starts a new process for every task, which costs seconds each time.
    found = simulate(job, workspace, [site.name for site in sites], len(sites), plan.seconds, report)
    found.path.rename(folder / "run")
    shutil.rmtree(folder / "state", ignore_errors=True)
    report(f"trained {cell.name} ({time.monotonic() - started:.0f} s)")


def make_workspace(folder: Path, plan: Plan, run: Run) -> Path:
    """A fresh simulator workspace: the allow-list, and a site file for the plan's data and checkpoint."""
    write_json(folder / "local" / "resources.json", policy())
    path = register(folder, run.dataset, plan.data)
    values = read_json(path)
    values["device"] = plan.device
    if run.backbone_row.resource is None:
        values["checkpoints"] = {run.backbone: {"path": str(plan.checkpoint.absolute())}}
    write_json(path, values)
    return folder


def _test(plan: Plan, cell: Cell) -> list[CaseScore]:
    """The cell's model on every site's test cases; "before" is the initial model."""
    model = (
        build(cell.run, plan.checkpoint).eval() if cell.setting == "before"
        else RunFolder(cell.folder(plan.out) / "run").model(plan.checkpoint)
    )
    preprocessing = DATASETS[cell.run.dataset].preprocessing
    return [
        item
        for site in read_sites(plan.data)
        for item in score(
            model, read_volumes(site, plan.split, preprocessing), cell.run, site.labels, (site.name, plan.split)
        )
    ]

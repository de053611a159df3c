"""A cell's training and test, as the worker processes of a comparison do them."""

import os
import re
import shutil
import signal
import threading
import time
from multiprocessing import parent_process
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import psutil
import torch

from fedpeft.data.datalist import pool, read_sites
from fedpeft.flare.round_line import MARK
from fedpeft.model.initial import build
from fedpeft.spec.datasets import DATASETS
from fedpeft.spec.jobs import Job, policy, write
from fedpeft.spec.run import Run
from fedpeft.study.cells import (
    CENTRALIZED,
    FEDERATED,
    INITIAL,
    WORKSPACE,
    Cell,
    Plan,
    attempt,
    is_trained,
    keep_scores,
    keep_time,
    label,
    made_from,
    sweep,
    times,
)
from fedpeft.study.simulate import end_all, simulate
from fedpeft.train.alone import train_alone
from fedpeft.train.checkpoints import needs_file
from fedpeft.train.files import read_json, write_json
from fedpeft.train.run_folder import RunFolder
from fedpeft.train.scores import CaseScore
from fedpeft.train.site import usable
from fedpeft.train.site_file import checkpoint_name, register
from fedpeft.train.tasks import score_site

ROUND = re.compile(rf"{re.escape(MARK)} round (\d+)/")

# Set in worker processes: where (cell, rounds done) goes, so that the comparison can tell how far it is.
_events: SimpleQueue | None = None


def prepare(events: SimpleQueue) -> None:
    """Make a process a worker: one thread, and gone together with the comparison that started it."""
    global _events
    _events = events
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of a terminal; the comparison alone decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()
    end_all(psutil.Process().children(recursive=True))
    os._exit(1)


def train(plan: Plan, source: dict[str, str], cell: Cell) -> None:
    """Train a cell, unless it is trained.

    Args:
        plan: data, output and limits.
        source: what the cell is made from, see ``Plan.source``.
        cell: what to train.
    """
    _tell(cell, 0)
    if is_trained(plan, cell, source):
        return
    started = time.monotonic()
    with attempt(cell.folder(plan.out), made_from(cell, source)) as folder:
        (_federated if cell.setting == FEDERATED else _alone)(plan, cell, folder)
        keep_time(folder, "train", time.monotonic() - started)


def test(plan: Plan, source: dict[str, str], cell: Cell) -> float:
    """Test a trained cell on every site and keep its scores; returns the seconds of its training and test."""
    started = time.monotonic()
    folder = cell.folder(plan.out)
    sweep(folder)
    scores = _scores(plan, cell)
    keep_time(folder, "test", time.monotonic() - started)
    keep_scores(plan, cell, source, scores)
    return sum(times(folder).values())


def train_and_test(plan: Plan, source: dict[str, str], cell: Cell) -> float:
    """Both; returns their seconds."""
    train(plan, source, cell)
    return test(plan, source, cell)


def _tell(cell: Cell, rounds: int) -> None:
    if _events is not None:
        _events.put((cell, rounds))


def _alone(plan: Plan, cell: Cell, folder: Path) -> None:
    sites = read_sites(plan.data)
    site = pool(sites) if cell.setting == CENTRALIZED else next(site for site in sites if site.name == cell.site)
    train_alone(
        cell.run, site, plan.checkpoint, folder / "run", cell.setting,
        lambda record: _tell(cell, record["round"] + 1), plan.device,
    )


def _federated(plan: Plan, cell: Cell, folder: Path) -> None:
    sites = [site.name for site in read_sites(plan.data)]
    workspace = make_workspace(folder / WORKSPACE, plan, cell.run)
    name = f"{label(cell.run)}_{cell.run.dataset}"
    # All on one machine: asking often costs nothing, and waiting would be a good part of a short round.
    job = write(Job(name, cell.run, min_sites=len(sites), poll_seconds=0.1), folder / "job")

    def report(line: str) -> None:
        if found := ROUND.match(line):
            _tell(cell, int(found[1]))

    # With fewer threads than sites the simulator starts a new process for every task, which costs seconds each time.
    simulate(job, workspace, sites, len(sites), plan.seconds, report).path.rename(folder / "run")
    shutil.rmtree(folder / "state", ignore_errors=True)


def make_workspace(folder: Path, plan: Plan, run: Run) -> Path:
    """A fresh simulator workspace: the allow-list, and a site file for the plan's data and checkpoint."""
    write_json(folder / "local" / "resources.json", policy())
    path = register(folder, run.dataset, plan.data)
    values = read_json(path)
    values["device"] = plan.device
    if needs_file(run):
        values["checkpoints"] = {checkpoint_name(run): {"path": str(plan.checkpoint.absolute())}}
    write_json(path, values)
    return folder


def _scores(plan: Plan, cell: Cell) -> list[CaseScore]:
    """Scores of the cell's model on every site's cases of the plan's split."""
    model = (
        build(cell.run, plan.checkpoint).eval() if cell.setting == INITIAL
        else RunFolder(cell.folder(plan.out) / "run").model(plan.checkpoint)
    ).to(usable(plan.device))
    preprocessing = DATASETS[cell.run.dataset].preprocessing
    return [
        item for site in read_sites(plan.data) for item in score_site(model, site, plan.split, cell.run, preprocessing)
    ]

"""Train and test an experiment in a worker process of a comparison."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.nn import Module

from fedpeft.common.devices import usable
from fedpeft.common.files import read_json, write_json
from fedpeft.config.jobs import Job
from fedpeft.config.run import Run
from fedpeft.data.datalist import pool, read_sites
from fedpeft.flare.rendering import policy, write
from fedpeft.models.checkpoints.start import needs_file
from fedpeft.models.initial import build
from fedpeft.study.plan.experiments import (
    CENTRALIZED,
    FEDERATED,
    INITIAL,
    WORKSPACE,
    Experiment,
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
from fedpeft.study.run.simulate import end_all, simulate
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import CaseScore
from fedpeft.training.client.site_file import checkpoint_name, register
from fedpeft.training.server.in_process import train_in_process
from fedpeft.training.server.run_folder import RunFolder

# What the workspace's site file calls the run that trainings start from.
INITIAL_RUN = "initial"
# Set in worker processes: the queue of (experiment, finished rounds), from which the comparison shows progress.
_events: SimpleQueue | None = None


def prepare(events: SimpleQueue) -> None:
    """Initialise a worker process: it computes in one thread, and ends with the comparison that started it."""
    global _events
    _events = events
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of a terminal, but only the comparison handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    comparison = parent_process()
    assert comparison is not None, "a worker is started by a comparison"
    comparison.join()
    end_all(psutil.Process().children(recursive=True))
    os._exit(1)


def train(plan: Plan, source: dict[str, str], experiment: Experiment) -> None:
    """Train an experiment, unless it is trained.

    Args:
        plan: data, output and limits.
        source: the experiment's inputs, see ``Plan.source``.
        experiment: the experiment to train.
    """
    _tell(experiment, 0)
    if is_trained(plan, experiment, source):
        return
    started = time.monotonic()
    with attempt(experiment.folder(plan.out), made_from(experiment, source)) as folder:
        (_federated if experiment.setting == FEDERATED else _alone)(plan, experiment, folder)
        keep_time(folder, "train", time.monotonic() - started)


def test(plan: Plan, source: dict[str, str], experiment: Experiment) -> float:
    """Test a trained experiment on every site and keep its scores; return the seconds of its training and test."""
    started = time.monotonic()
    folder = experiment.folder(plan.out)
    sweep(folder)
    scores = _scores(plan, experiment)
    keep_time(folder, "test", time.monotonic() - started)
    keep_scores(plan, experiment, source, scores)
    return sum(times(folder).values())


def train_and_test(plan: Plan, source: dict[str, str], experiment: Experiment) -> float:
    """Train and test an experiment; return the seconds of both."""
    train(plan, source, experiment)
    return test(plan, source, experiment)


def _tell(experiment: Experiment, rounds: int) -> None:
    if _events is not None:
        _events.put((experiment, rounds))


def _reporter(experiment: Experiment) -> Callable[[dict[str, Any]], None]:
    """Make a function that takes a round's record and reports the number of finished rounds."""
    return lambda record: _tell(experiment, record["round"] + 1)


def _alone(plan: Plan, experiment: Experiment, folder: Path) -> None:
    sites = read_sites(plan.data)
    site = (
        pool(sites)
        if experiment.setting == CENTRALIZED
        else next(site for site in sites if site.name == experiment.site)
    )
    train_in_process(
        experiment.run,
        [site],
        plan.checkpoint,
        folder / "run",
        experiment.setting,
        _reporter(experiment),
        plan.device,
        start=plan.start(experiment.run),
    )


def _federated(plan: Plan, experiment: Experiment, folder: Path) -> None:
    sites = [site.name for site in read_sites(plan.data)]
    workspace = make_workspace(folder / WORKSPACE, plan, experiment.run)
    name = f"{label(experiment.run)}_{experiment.run.data.dataset}"
    # Frequent polling is cheap on one machine, and waiting would take a large part of a short round.
    started = INITIAL_RUN if plan.initial_run else ""
    job = Job(name, experiment.run.config, min_sites=len(sites), poll_seconds=0.1, initial_run=started)
    files = write(job, folder / "job")

    # With fewer threads than sites, the simulator starts a new process for every task, which takes seconds each time.
    simulate(files, workspace, sites, len(sites), plan.seconds, _reporter(experiment)).path.rename(folder / "run")
    shutil.rmtree(folder / "state", ignore_errors=True)


def make_workspace(folder: Path, plan: Plan, run: Run) -> Path:
    """Make a simulator workspace with the allow-list, and a site file for the plan's data and checkpoint."""
    write_json(folder / "local" / "resources.json", policy())
    path = register(folder, run.data.dataset, plan.data)
    values = read_json(path)
    values["device"] = plan.device
    if plan.checkpoint and needs_file(run):
        values["checkpoints"] = {checkpoint_name(run): {"path": str(plan.checkpoint.absolute())}}
    if plan.initial_run:
        values["initial_runs"] = {INITIAL_RUN: str(plan.initial_run.absolute())}
    write_json(path, values)
    return folder


def _initial(plan: Plan, run: Run) -> Module:
    """The model that a run starts from, in evaluation mode."""
    model, start = build(run, plan.checkpoint), plan.start(run)
    model.load_state_dict(start.tensors if start else {}, strict=False)
    return model.eval()


def _scores(plan: Plan, experiment: Experiment) -> list[CaseScore]:
    """Score the experiment's model on every site's cases of the plan's split."""
    model = (
        _initial(plan, experiment.run)
        if experiment.setting == INITIAL
        else RunFolder(experiment.folder(plan.out) / "run").model(plan.checkpoint)
    ).to(usable(plan.device, "--device"))
    run, task = experiment.run, task_of(experiment.run)
    return [
        item
        for site in read_sites(plan.data)
        for item in task.score_site(model, site, plan.split, run, run.preprocessing, plan.scoring)
    ]

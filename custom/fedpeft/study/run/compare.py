"""Compare methods in local, federated and centralized training on one folder of sites.

All settings run the same loop with the same number of rounds; federated training goes through FLARE's simulator.
Finished experiments are not repeated: an interrupted comparison continues, and a comparison of more methods, settings
or seeds adds to the existing ones.
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children, get_context
from typing import Any

import psutil

from fedpeft.config.run import Run
from fedpeft.data.datalist import read_sites
from fedpeft.study.plan.experiments import (
    FEDERATED,
    Experiment,
    Plan,
    experiments_of,
    kept_scores,
    only_one,
    refuse_replacing,
    sweep,
    times,
)
from fedpeft.study.results.results import write_results
from fedpeft.study.run.checks import refuse_faults
from fedpeft.study.run.progress import Progress
from fedpeft.study.run.simulate import end_all
from fedpeft.study.run.work import prepare, test, train, train_and_test

LOOK = 0.2
# Errors whose cause a user can repair; any other is a defect.
EXPECTED = (ValueError, OSError, RuntimeError)
Report = Callable[[Progress, str], None]


def compare(plan: Plan, runs: Sequence[Run], settings: Sequence[str], report: Report) -> dict[str, Any]:
    """Train and test every experiment; write results.json, times.json, cases.csv and the table.

    Args:
        plan: data, output and limits.
        runs: one for each method, rank and seed.
        settings: some of "local", "federated" and "centralized".
        report: called with the progress and a line for people about the latest event.

    Returns:
        The content of results.json, see ``fedpeft.study.results.results``.

    Raises:
        FaultError: what would end an experiment is known before the first one, see ``checks``; nothing was written.
        ValueError: a finished training in ``plan.out`` has other inputs, which is not replaced.
        RuntimeError: experiments failed; the message names each with its reason. All others are finished and kept.
    """
    sites = read_sites(plan.data)
    experiments = experiments_of(runs, settings, sites)
    refuse_faults(plan, experiments, sites)
    with only_one(plan.out):
        sweep(plan.out)
        source = plan.source()
        refuse_replacing(plan, experiments, source)
        progress = Progress(experiments, plan.workers, report)
        todo = [experiment for experiment in experiments if kept_scores(plan, experiment, source) is None]
        progress.kept(
            {
                experiment: sum(times(experiment.folder(plan.out)).values()) or None
                for experiment in experiments
                if experiment not in todo
            }
        )
        failures = _do(plan, source, todo, progress) if todo else {}
        _raise(plan, experiments, failures)
        scores = {experiment: kept_scores(plan, experiment, source) for experiment in experiments}
        return write_results(plan, {experiment: items for experiment, items in scores.items() if items is not None})


def _do(
    plan: Plan, source: dict[str, str], experiments: list[Experiment], progress: Progress
) -> dict[Experiment, BaseException]:
    """Train and test experiments; return the error of each that failed."""
    alone = [experiment for experiment in experiments if experiment.setting != FEDERATED]
    with Workers(min(plan.workers, len(experiments)), progress) as pool:
        for experiment in alone:
            pool.start(experiment, train_and_test, plan, source)
        pool.wait()
        # One after the other, since each starts a process for every site. Its test runs beside the next training.
        for experiment in experiments:
            if experiment.setting == FEDERATED:
                pool.wait(pool.start(experiment, train, plan, source))
                if experiment not in pool.failures:
                    pool.start(experiment, test, plan, source)
        pool.wait()
    return pool.failures


def _raise(plan: Plan, experiments: list[Experiment], failures: dict[Experiment, BaseException]) -> None:
    """Raise an error that names the failed experiments, if there are any."""
    failures = {experiment: failures[experiment] for experiment in experiments if experiment in failures}
    for experiment, error in failures.items():
        if not isinstance(error, EXPECTED):
            error.add_note(f"in the experiment {experiment.name} of {plan.out}")
            raise error
    if failures:
        reasons = "; ".join(f"{experiment.name}: {error}" for experiment, error in failures.items())
        raise RuntimeError(
            f"{len(failures)} of {len(experiments)} experiments failed; the others are finished, in {plan.out}. "
            f"Repair what follows and give the same command again; it repeats only these. {reasons}"
        )


class Workers:
    """The worker processes, which train and test experiments.

    Args:
        count: number of processes.
        progress: receives the events: an experiment begins, advances, finishes or fails.
    """

    def __init__(self, count: int, progress: Progress) -> None:
        context = get_context("spawn")
        self._events = context.SimpleQueue()
        self._executor = ProcessPoolExecutor(count, context, initializer=prepare, initargs=(self._events,))
        self._progress = progress
        self._others = set(active_children())
        self._open: dict[Future[float | None], Experiment] = {}
        self.failures: dict[Experiment, BaseException] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._executor.shutdown(wait=kind is None, cancel_futures=True)
        if kind is not None:
            end_all(self._processes())

    def start(
        self, experiment: Experiment, function: Callable[..., float | None], *arguments: Any
    ) -> list[Future[float | None]]:
        """Let a worker call ``function(*arguments, experiment)``; if it returns seconds, the experiment is finished."""
        try:
            future = self._executor.submit(function, *arguments, experiment)
        except BrokenProcessPool as error:
            self._failed(experiment, error)
            return []
        self._open[future] = experiment
        return [future]

    def wait(self, futures: Collection[Future[float | None]] | None = None) -> None:
        """Wait for the given tasks, or for all, and report progress meanwhile."""
        while self._open.keys() & (self._open if futures is None else futures):
            done, _ = wait(self._open, timeout=LOOK, return_when=FIRST_COMPLETED)
            while not self._events.empty():
                self._progress.advanced(*self._events.get())
            for future in done:
                self._close(self._open.pop(future), future)

    def _close(self, experiment: Experiment, future: Future[float | None]) -> None:
        if error := future.exception():
            self._failed(experiment, error)
        elif (seconds := future.result()) is not None:
            self._progress.finished(experiment, seconds)

    def _failed(self, experiment: Experiment, error: BaseException) -> None:
        if isinstance(error, BrokenProcessPool):
            error = RuntimeError("a worker process was killed from outside, often for lack of memory: free some")
        self.failures[experiment] = error
        self._progress.failed(experiment, error)

    def _processes(self) -> list[psutil.Process]:
        """The worker processes and every process that they started."""
        found = []
        for child in set(active_children()) - self._others:
            with suppress(psutil.NoSuchProcess):
                worker = psutil.Process(child.pid)
                found += [*worker.children(recursive=True), worker]
        return found

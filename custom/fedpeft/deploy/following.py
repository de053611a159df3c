"""Follow a submitted job until its run ends, and check whether the run truly finished.

FLARE's status of a job proves little: COMPLETED may mean that every round was refused, ABNORMAL that every round was
done, and a run may go on in another job (``deploy/continuation.py``). run.json of the result says how the run ended.

A person's machine reaches the server through FLARE's admin API alone. Progress comes from ``show_stats`` and the job's
record; lines of the server's log are shown and not interpreted.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from fedpeft.deploy.continuation import CONTINUED_BY
from fedpeft.deploy.session import AdminSession
from fedpeft.flare.round_line import MARK
from fedpeft.training.server.run_folder import FINISHED, RunFolder, find_run

ENDED = ("FINISHED", "FAILED", "ABORTED", "ABANDONED")
COMPLETED = "FINISHED:COMPLETED"
REASONS = 5


class Pace:
    """Estimates the time of the remaining rounds from the rounds that it has seen begin."""

    def __init__(self) -> None:
        self._seen: int | None = None
        self._first: tuple[int, float] | None = None
        self._looked = False
        self.left = ""

    def look(self, stats: dict[str, Any], now: float) -> bool:
        """Take a job's statistics at the time ``now``, in seconds; return whether another round has begun."""
        round_, looked = stats.get("current_round"), self._looked
        self._looked = True
        if round_ is None or round_ == self._seen:
            return False
        self._seen = round_
        if self._first is not None:
            each = (now - self._first[1]) / max(1, round_ - self._first[0])
            self.left = f" | about {timedelta(seconds=round(each * (stats['num_rounds'] - round_)))} left"
        elif looked:
            # The round of the first look began before it, at an unknown time.
            self._first = round_, now
        return True


def last_job(session: AdminSession, job: str) -> str:
    """The last job of a job's run, which is the job itself if no other continues it."""
    while following := session.meta(job).get(CONTINUED_BY):
        job = following
    return job


def follow(session: AdminSession, job: str, report: Callable[[str], None], every: float) -> str:
    """Report on a run until it has ended.

    Args:
        session: connection to the server.
        job: id of one of the run's jobs.
        report: called with every new line for people: a job's status, the sites at work, finished rounds.
        every: seconds between two requests.

    Returns:
        The id of the run's last job.
    """
    while True:
        _follow_one(session, job, report, every)
        # The server starts the next job just after it has recorded the end of the last one.
        time.sleep(every)
        following = session.meta(job).get(CONTINUED_BY)
        if following is None:
            return job
        report(f"the run goes on in job {following}")
        job = following


def finished_run(session: AdminSession, job: str, out: Path) -> RunFolder:
    """Fetch the result of a run's last job.

    Raises:
        RuntimeError: the run did not finish; the message says how it ended and, if the server knows, why.
    """
    meta = session.meta(job)
    folder = session.download(job, out)
    try:
        run = find_run(folder)
    except FileNotFoundError as error:
        raise RuntimeError(f"job {job} did not begin its run: {_why(session, meta, job)}") from error
    status = run.description["status"]
    if status != FINISHED:
        raise RuntimeError(
            f"the run of job {job} did not finish, it ended as {status!r}: {_why(session, meta, job)}; what it has is "
            f"in {run.path}"
        )
    return run


def _follow_one(session: AdminSession, job: str, report: Callable[[str], None], every: float) -> None:
    shown: set[str] = set()

    def show(line: str) -> None:
        if line not in shown:
            shown.add(line)
            report(line)

    stats: dict[str, Any] = {}
    pace = Pace()
    while True:
        status = session.meta(job)["status"]
        ended = status.startswith(ENDED)
        # After the last round the job's process ends; a request to it would leave an error in the server's log.
        if status == "RUNNING" and stats.get("phase") != "_finished_":
            stats = session.stats(job) or stats
        if pace.look(stats, time.monotonic()) or ended:
            for line in lines_for_people(session.log(job)):
                show(line)
        show(f"{status.lower()}{_at_work(stats, pace.left)}" if not ended else f"job {job}: {status}")
        if ended:
            return
        time.sleep(every)


def lines_for_people(log: str) -> list[str]:
    """The lines of a job's log that report rounds, see ``flare/round_line.py``."""
    return [line.partition(MARK)[2].strip() for line in log.splitlines() if MARK in line]


def _at_work(stats: dict[str, Any], left: str) -> str:
    """Text such as ", round 3/10: train at hospital-1 | about 0:02:00 left"; the final validation has no round."""
    round_, rounds = stats.get("current_round"), stats.get("num_rounds")
    # A task that no site has fetched yet has an empty list of sites.
    at_work = {task: sorted(sites) for task, sites in stats.get("tasks", {}).items() if sites}
    tasks = "; ".join(f"{task} at {', '.join(sites)}" for task, sites in at_work.items())
    if round_ is None or not tasks:
        return ""
    return f", round {round_ + 1}/{rounds}: {tasks}{left}" if round_ < rounds else f": {tasks}"


def _why(session: AdminSession, meta: dict[str, Any], job: str) -> str:
    """FLARE's status of the job, the sites that refused it, and the last errors of the server's log."""
    refused = [text for text in meta.get("job_deploy_detail", []) if not text.endswith(": OK")]
    errors = [line for line in session.log(job).splitlines() if " - ERROR - " in line][-REASONS:]
    return "; ".join((meta["status"], *refused, *(line.split(" - ERROR - ", 1)[1] for line in errors)))

"""A submitted job until its run's end, with a line a round, and whether it truly finished.

What FLARE says of a job's end proves little: it is COMPLETED with every round refused, ABNORMAL with every round done,
and a run may go on in another job (``flare/continuation.py``). Whether it finished stands in run.json of the result.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from fedpeft.deploy.continuation import CONTINUED_BY
from fedpeft.deploy.session import AdminSession
from fedpeft.flare.round_line import MARK, read_round_line
from fedpeft.training.server.run_folder import RunFolder, find_run

ENDED = ("FINISHED", "FAILED", "ABORTED", "ABANDONED")
COMPLETED = "FINISHED:COMPLETED"
REASONS = 5


def last_job(session: AdminSession, job: str) -> str:
    """The job in which a job's run goes on; the job itself where it has not been continued."""
    while following := session.meta(job).get(CONTINUED_BY):
        job = following
    return job


def follow(session: AdminSession, job: str, report: Callable[[str], None], every: float) -> str:
    """Report a run's lines until it has ended.

    Args:
        session: connection to the server.
        job: id of one of the run's jobs.
        report: called with every new line for people: states of a job, who is at work, finished rounds.
        every: seconds between looks.

    Returns:
        The id of the run's last job.
    """
    while True:
        _follow_one(session, job, report, every)
        # The server continues a run just after it has noted the end of its job.
        time.sleep(every)
        following = session.meta(job).get(CONTINUED_BY)
        if following is None:
            return job
        report(f"the run goes on in job {following}")
        job = following


def finished_run(session: AdminSession, job: str, out: Path) -> RunFolder:
    """Fetch the result of a run's last job.

    Raises:
        RuntimeError: the run did not finish; the message says how it ended, and why as far as the server knows.
    """
    meta = session.meta(job)
    folder = session.download(job, out)
    try:
        run = find_run(folder)
    except FileNotFoundError as error:
        raise RuntimeError(f"job {job} did not begin its run: {_why(session, meta, job)}") from error
    status = run.description["status"]
    if status != "finished":
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
    round_ = None
    while True:
        status = session.meta(job)["status"]
        ended = status.startswith(ENDED)
        # Once the rounds are over the job's process ends, and a question to it would be an error in the server's log.
        if status == "RUNNING" and stats.get("phase") != "_finished_":
            stats = session.stats(job)
        if ended or stats.get("current_round") != round_:
            round_ = stats.get("current_round")
            for line in told(session.log(job)):
                show(line)
        show(f"{status.lower()}{_at_work(stats)}" if not ended else f"job {job}: {status}")
        if ended:
            return
        time.sleep(every)


def told(log: str) -> list[str]:
    """The lines of a job's log that are for people; finished rounds say about how long the others will take."""
    lines, seconds = [], []
    for line in log.splitlines():
        if MARK in line:
            left = ""
            if read := read_round_line(line):
                done, rounds, took = read
                seconds.append(took)
                left = f" | about {timedelta(seconds=round(fmean(seconds) * (rounds - done)))} left"
            lines.append(line[line.index(MARK) + len(MARK) :].strip() + left)
    return lines


def _at_work(stats: dict[str, Any]) -> str:
    """ ", round 3/10: train at hospital-1" while sites work; the last task of a run is not of a round."""
    round_, rounds = stats.get("current_round"), stats.get("num_rounds")
    tasks = "; ".join(f"{task} at {', '.join(sorted(sites))}" for task, sites in stats.get("tasks", {}).items())
    if round_ is None or not tasks:
        return ""
    return f", round {round_ + 1}/{rounds}: {tasks}" if round_ < rounds else f": {tasks}"


def _why(session: AdminSession, meta: dict[str, Any], job: str) -> str:
    """How FLARE ended the job, who refused it, and the last errors of the server's log."""
    refused = [text for text in meta.get("job_deploy_detail", []) if not text.endswith(": OK")]
    errors = [line for line in session.log(job).splitlines() if " - ERROR - " in line][-REASONS:]
    return "; ".join((meta["status"], *refused, *(line.split(" - ERROR - ", 1)[1] for line in errors)))

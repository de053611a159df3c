"""Run a job in FLARE's simulator, as child processes with a time limit.

The simulator's exit code proves nothing, and the simulator hangs if a client dies. So a run counts as done when the
server's run.json says "finished".
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from fedpeft.flare.internals import SIMULATED_SITE
from fedpeft.study.run.follow import RunFollower
from fedpeft.training.server.run_folder import FINISHED, RunFolder, find_run

RUN = Path("server", "simulate_job", "app_server", "run")
LOOK = 0.2
LOOKS = 10
# Every process of a simulation inherits this variable, whose value is the workspace. It identifies the processes even
# if they changed their session, their parents have ended, or process numbers were reused.
VARIABLE = "FEDPEFT_SIMULATION"


def simulate(
    job: Path,
    workspace: Path,
    sites: Sequence[str],
    threads: int,
    seconds: float,
    report: Callable[[dict[str, Any]], None],
) -> RunFolder:
    """Run a job for the named sites.

    Args:
        job: the job's folder.
        workspace: its ``local/`` has resources.json and the site file; FLARE may delete everything else in it.
        sites: names of the clients, which are those of their data folders.
        threads: number of clients that run at the same time.
        seconds: time limit for the whole run.
        report: called with each round's record in rounds.jsonl.

    Returns:
        The server's run folder.

    Raises:
        TimeoutError: the limit was reached; the simulator and its clients were stopped.
        RuntimeError: the run did not finish; the message says how it ended and where the log is.
    """
    log = workspace.parent / f"{workspace.name}.log"
    end = time.monotonic() + seconds
    # Removes the run folder of an earlier simulation in the same workspace.
    shutil.rmtree(workspace / RUN, ignore_errors=True)
    follower, finished = RunFollower(workspace / RUN, report), False
    with log.open("w") as output:
        process = subprocess.Popen(
            _command(job, workspace, sites, threads),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONUNBUFFERED": "1", VARIABLE: str(workspace.absolute())},
        )
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(LOOK)
                finished = follower.look()
                # Once the sites have ended, FLARE only waits for its own threads, which takes seconds.
                if finished and not any(map(_is_site, _family(workspace))):
                    break
            expired = process.poll() is None and not finished
        finally:
            end_simulation(workspace)
            process.wait()
        follower.look()
    if expired:
        raise TimeoutError(
            f"the simulator did not end within {seconds:.0f} s and was stopped: raise the limit (compare: --minutes) "
            f"if its log shows that rounds went on; its log is {log}"
        )
    return _finished(workspace / RUN, log)


def _command(job: Path, workspace: Path, sites: Sequence[str], threads: int) -> list[str]:
    folders = [str(job.absolute()), "-w", str(workspace.absolute())]
    return [
        *(sys.executable, "-m", "nvflare.cli", "simulator"),
        *(*folders, "-c", ",".join(sites), "-t", str(min(threads, len(sites)))),
    ]


def end_simulation(workspace: Path) -> None:
    """End every process of a workspace's simulation, including those that a killed parent left behind."""
    for _ in range(LOOKS):
        # Repeated, since a process may have been starting another one.
        family = _family(workspace)
        if not family:
            return
        end_all(family)


def end_all(family: Iterable[psutil.Process]) -> None:
    """Kill processes and wait until they have ended; psutil compares start times, so reused numbers are safe."""
    family = list(family)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)


def _family(workspace: Path) -> list[psutil.Process]:
    mine = str(workspace.absolute())
    return [process for process in psutil.process_iter() if _workspace_of(process) == mine]


def _is_site(process: psutil.Process) -> bool:
    try:
        return SIMULATED_SITE in process.cmdline()
    except psutil.Error:
        # The process has ended meanwhile.
        return False


def _workspace_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(VARIABLE)
    except (psutil.Error, OSError):
        # The process has ended meanwhile, or belongs to another user.
        return None


def _finished(path: Path, log: Path) -> RunFolder:
    """Return the folder of a run that must have finished.

    Raises:
        RuntimeError: the run did not finish; the message says how it ended and where the log is.
    """
    try:
        folder = find_run(path)
    except FileNotFoundError as error:
        raise RuntimeError(f"the job did not start: {_first_error(log)}; the simulator's log is {log}") from error
    status = folder.description["status"]
    if status != FINISHED:
        raise RuntimeError(f"the job ended as {status!r}; the simulator's log is {log}")
    return folder


def _first_error(log: Path) -> str:
    """The first line of a log that names an error; the line with the reason, where a traceback stands in the log."""
    lines = log.read_text().splitlines()
    named = (line for line in lines if re.match(r"(\w+\.)*\w+Error: ", line))
    logged = (line for line in lines if " ERROR " in line or "Error" in line)
    return next((line.strip() for found in (named, logged) for line in found), "no error was logged")

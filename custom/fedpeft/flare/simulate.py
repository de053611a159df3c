"""A job through FLARE's simulator, as a child process under a time limit.

The simulator's exit code proves nothing and a dead client hangs it, so what counts is the run folder that the server
wrote, and that its run.json says "finished".
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer

from fedpeft.flare.round_line import MARK
from fedpeft.train.run_folder import RunFolder, find_run

RUN = Path("server", "simulate_job", "app_server", "run")


def simulate(
    job: Path, workspace: Path, sites: Sequence[str], threads: int, seconds: float, report: Callable[[str], None]
) -> RunFolder:
    """Run a job for the named sites.

    Args:
        job: the job's folder.
        workspace: its ``local/`` holds resources.json and the site file; all else in it is FLARE's to delete.
        sites: client names, each one that of its data folder.
        threads: clients that run at the same time.
        seconds: limit for the whole run.
        report: called with every line that is meant for people.

    Returns:
        The run folder of the server.

    Raises:
        TimeoutError: the limit was reached; the simulator and its clients were stopped.
        RuntimeError: the run did not finish; the message says how it ended and where the log is.
    """
    log = workspace.parent / f"{workspace.name}.log"
    command = [
        sys.executable, "-m", "nvflare.cli", "simulator", str(job.absolute()), "-w", str(workspace.absolute()),
        "-c", ",".join(sites), "-t", str(min(threads, len(sites))),
    ]
    # A session of its own: the simulator's clients are its children and end with the group.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    limit = Timer(seconds, _end, [process])
    limit.start()
    try:
        with log.open("w") as stream:
            for line in process.stdout:
                stream.write(line)
                if MARK in line:
                    report(line[line.index(MARK) :].strip())
        process.wait()
    finally:
        expired = not limit.is_alive()
        limit.cancel()
        _end(process)
    if expired:
        raise TimeoutError(f"the simulator did not end within {seconds:.0f} s and was stopped; its log is {log}")
    return _finished(workspace / RUN, log)


def _finished(path: Path, log: Path) -> RunFolder:
    """The run folder, if the run truly came to its end.

    Raises:
        RuntimeError: it did not.
    """
    try:
        folder = find_run(path)
    except FileNotFoundError as error:
        raise RuntimeError(f"the job did not start: {_first_error(log)}; the simulator's log is {log}") from error
    status = folder.description["status"]
    if status != "finished":
        raise RuntimeError(f"the job ended as {status!r}; the simulator's log is {log}")
    return folder


def _first_error(log: Path) -> str:
    for line in log.read_text().splitlines():
        if " ERROR " in line or "Error" in line:
            return line.strip()
    return "no error was logged"


def _end(process: subprocess.Popen) -> None:
    """End the simulator and every client it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

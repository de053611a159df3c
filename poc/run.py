"""Run a job with FLARE as separate processes on this machine: a server and three sites. All of them end with it.

    python poc/run.py                the same as make poc
    python poc/run.py --keep         keeps FLARE running until Ctrl-C, to try its console

All files are in one folder, even those that FLARE would write into the home folder and /tmp, and the port is a free
one. Another FLARE on this machine and its user's settings stay untouched. The exit status is 0 if the run finished.
"""

import argparse
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from fedpeft.common.files import write_json
from fedpeft.config.jobs import JOBS
from fedpeft.data.phantom.sites import write_phantom
from fedpeft.deploy.following import finished_run, follow
from fedpeft.deploy.provision import server_template, site_template
from fedpeft.deploy.session import AdminSession
from fedpeft.flare.rendering import write
from fedpeft.study.run.simulate import VARIABLE, end_simulation
from fedpeft.training.client.site_file import NAME

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent / "admin" / "project.yml"
# The server listens at the address of its name; this one cannot be reached from other machines.
SERVER, SITES, LEAD = "localhost", ("site-1", "site-2", "site-3"), "lead@example.org"
KITS, HOME, TMP, LOG = Path("workspace", "fedpeft", "prod_00"), "home", "tmp", "nvflare.log"
JOB = JOBS["flap_sam_phantom"]
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
START_SECONDS, LOOK = 180, 1.0


def main() -> int:
    """Start FLARE, run the job, stop FLARE; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="rounds of the job (default 4)")
    parser.add_argument("--data", type=Path, help=f"phantoms of {', '.join(SITES)} (default: new ones)")
    parser.add_argument("--state", type=Path, default=HERE / "state" / "flare", help="folder for all files")
    parser.add_argument("--minutes", type=int, default=30, help="time limit of start and job (default 30)")
    parser.add_argument("--keep", action="store_true", help="keep FLARE running after the job, until Ctrl-C")
    args = parser.parse_args()
    state = args.state.absolute()
    for number in STOPS:
        signal.signal(number, _stop)
    signal.alarm(60 * args.minutes)
    try:
        with federation(state, args.data):
            train(state, args.rounds)
            if args.keep:
                signal.alarm(0)
                wait(state)
    except (RuntimeError, OSError, ValueError) as error:
        print(f"error: {error}; logs are in {state / KITS}", file=sys.stderr)
        return 1
    print(f"FLARE has stopped; next: fedpeft evaluate --run {state / 'result'} --data {args.data or state / 'data'}")
    return 0


@contextmanager
def federation(state: Path, data: Path | None) -> Iterator[None]:
    """Run FLARE's proof of concept during the block.

    Raises:
        RuntimeError: the folder is in use, or FLARE did not start.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"{state} is in use by another poc/run.py: wait for its end, or stop it") from error
        try:
            start(state, data)
            yield
        finally:
            for number in STOPS:
                signal.signal(number, signal.SIG_IGN)
            # Killed, as by FLARE's own scripts, since the policy lets nobody stop a site remotely.
            end_simulation(state)
            shutil.rmtree(state / TMP, ignore_errors=True)


def start(state: Path, data: Path | None) -> None:
    """Prepare and start FLARE's proof of concept, with the policy that admin/project.yml gives to every kit."""
    # Ends what a killed earlier start left behind.
    end_simulation(state)
    for name in (HOME, TMP, "workspace", "result"):
        shutil.rmtree(state / name, ignore_errors=True)
    for name in (HOME, TMP):
        (state / name).mkdir(mode=0o700)
    (state / LOG).unlink(missing_ok=True)
    _move_in(state)
    if data is None and not (state / "data").exists():
        _say(f"making phantoms of {len(SITES)} sites")
        write_phantom(state / "data", len(SITES), seed=0)
    _say("making kits, starting a server and three sites")
    port = _free_port()
    (state / "project.yml").write_text(yaml.safe_dump(project(port), sort_keys=False))
    nvflare(state, "poc", "prepare", "-i", str(state / "project.yml"), "--force")
    _fill_in(state, (data or state / "data").absolute())
    nvflare(state, "poc", "start", "--timeout", str(START_SECONDS))
    _say(f"FLARE runs at {SERVER}:{port}, its kits are in {state / KITS}")


def project(port: int) -> dict[str, Any]:
    """admin/project.yml with this machine's names and port, and without a wheel, since the installed package runs."""
    plan = yaml.safe_load(PROJECT.read_text())
    (server,) = (part for part in plan["participants"] if part["type"] == "server")
    server |= {"name": SERVER, "fed_learn_port": port}
    hospitals = (part for part in plan["participants"] if part["type"] == "client")
    for part, name in zip(hospitals, SITES, strict=True):
        part["name"] = name
    plan["builders"][-1]["args"]["wheel_folder"] = None
    return plan


def nvflare(state: Path, *arguments: str) -> None:
    """Run FLARE's command; its processes carry the environment variable by which they are ended.

    Raises:
        RuntimeError: the command failed.
    """
    with (state / LOG).open("a") as log:
        done = subprocess.run(
            [sys.executable, "-m", "nvflare.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {VARIABLE: str(state)},
            start_new_session=True,
            umask=0o077,
        )
    if done.returncode != 0:
        raise RuntimeError(f"nvflare {' '.join(arguments)} failed:\n{(state / LOG).read_text()[-2000:]}")


def train(state: Path, rounds: int) -> None:
    """Submit the job as the lead, follow it, fetch its result.

    Raises:
        RuntimeError: the run did not finish.
    """
    job = write(replace(JOB, run=JOB.run.with_(rounds=rounds)), state / "jobs")
    with AdminSession(state / KITS / LEAD) as session:
        job_id = session.submit(job)
        _say(f"submitted {job.name}: {job_id}")
        run = finished_run(session, follow(session, job_id, _say, LOOK), state / "result")
    _say(f"finished: {run.path}")


def wait(state: Path) -> None:
    """Print how to start the lead's console, and wait for Ctrl-C."""
    python, kit = Path(sys.executable).parent, state / KITS / LEAD
    _say(f"the lead's console: HOME={state / HOME} PATH={python}:$PATH {kit}/startup/fl_admin.sh; Ctrl-C stops FLARE")
    with suppress(SystemExit):
        signal.pause()


def _move_in(state: Path) -> None:
    """Set the environment of FLARE's processes, and of its API in this one, so that all files stay in ``state``."""
    for name in [name for name in os.environ if name.startswith("NVFL")]:
        del os.environ[name]
    os.environ |= {
        "HOME": str(state / HOME),
        "TMPDIR": str(state / TMP),
        "NVFLARE_POC_WORKSPACE": str(state / "workspace"),
        "OMP_NUM_THREADS": "1",
    }


def _fill_in(state: Path, data: Path) -> None:
    """Write the site files, as hospitals would fill them in."""
    server = {"checkpoints": {}, "threads": 1}
    hospital = server | {
        "datasets": {JOB.run.data.dataset: str(data / "{site}" / "datalist.json")},
        "device": "cpu",
        "state_dir": str(state / "workspace" / "state" / "{site}"),
        "permit": {"methods": [JOB.run.model.method], "max_upload_bytes": 10_000_000},
    }
    write_json(state / KITS / SERVER / "local" / NAME, server_template() | server)
    for site in SITES:
        write_json(state / KITS / site / "local" / NAME, site_template() | hospital)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((SERVER, 0))
        return probe.getsockname()[1]


def _say(line: str) -> None:
    print(line, flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise SystemExit, since FLARE's API would take an Exception for a lost connection and try again."""
    raise SystemExit("the limit of --minutes is reached" if number == signal.SIGALRM else 128 + number)


if __name__ == "__main__":
    sys.exit(main())

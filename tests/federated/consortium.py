"""Server and hospitals as real processes over mTLS on loopback, from kits that ``nvflare provision`` makes."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from made_kits import REPOSITORY, WHEEL, made_wheel, nvflare

from fedpeft.common.files import read_json, write_json
from fedpeft.config.methods import METHODS
from fedpeft.deploy.following import ENDED
from fedpeft.deploy.session import AdminSession
from fedpeft.study.run.simulate import VARIABLE, end_all, end_simulation
from fedpeft.training.client.site_file import NAME
from fedpeft.training.server.run_folder import RunFolder, find_run

SERVER = "localhost"
LEAD, ADMIN, IT = "lead@example.org", "admin@example.org", "it@hospital-1.org"
# Generous: these end a test that hangs, and say nothing of how long a step takes.
STARTED, LOOK = 300, 0.2
PARTICIPANT = "FEDPEFT_PARTICIPANT"
JOB_PROCESSES = ("nvflare.private.fed.app.client.worker_process", "nvflare.private.fed.app.server.runner_process")


class Consortium:
    """One server and its hospitals; a context manager that leaves no process behind.

    Args:
        folder: where everything goes.
        sites: names of the hospitals.
        data: folder of sites; a hospital without one of its name takes one of the others, in order.
        task: name of the data set in the site files.
    """

    def __init__(self, folder: Path, sites=("hospital-1", "hospital-2"), data: Path | None = None, task="phantom"):
        self.folder, self.sites = folder, tuple(sites)
        self.kits = _provision(folder, self.sites)
        self.port = read_json(self.kit("server") / "startup" / "fed_server.json")["servers"][0]["admin_port"]
        self._sessions: dict[str, AdminSession] = {}
        for index, name in enumerate(self.sites):
            datasets = {} if data is None else {task: str(_site_data(data, name, index) / "datalist.json")}
            write_json(
                self.kit(name) / "local" / NAME,
                {
                    "version": 1,
                    "datasets": datasets,
                    "checkpoints": {},
                    "device": "cpu",
                    "threads": 1,
                    "state_dir": str(folder / "state" / name),
                    "permit": {"methods": list(METHODS), "max_upload_bytes": 10_000_000},
                },
            )
        write_json(self.kit("server") / "local" / NAME, {"version": 1, "checkpoints": {}, "threads": 1})

    def __enter__(self) -> "Consortium":
        return self

    def __exit__(self, *error) -> None:
        for session in self._sessions.values():
            session.__exit__()
        end_simulation(self.folder)
        assert not self.processes()

    def kit(self, name: str) -> Path:
        """A participant's kit; the server's also by the name "server"."""
        return self.kits / (SERVER if name == "server" else name)

    def environment(self, name: str) -> dict[str, str]:
        """Of all that is started, by which it is found and ended."""
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        mine = {"PATH": path, VARIABLE: str(self.folder.absolute()), PARTICIPANT: name, "OMP_NUM_THREADS": "1"}
        return os.environ | mine

    # Processes

    def processes(self, name: str | None = None) -> list[psutil.Process]:
        """All processes of a participant, or of all."""
        kept = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                found = process.environ()
                mine = found.get(VARIABLE) == str(self.folder.absolute()) and name in (None, found.get(PARTICIPANT))
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    kept.append(process)
        return kept

    def start(self, *names: str, daemon: bool = False, ready: bool = True, **variables: str) -> None:
        """Start participants by their kits' own script; with ``ready``, wait until they listen or have registered.

        Args:
            names: "server" or hospitals.
            daemon: with FLARE's script that starts the process again when it ends.
            ready: whether to wait.
            variables: further environment.
        """
        before = {name: len(self.log(name)) for name in names}
        for name in names:
            command = ["bash", str(self.kit(name) / "startup" / "sub_start.sh"), *([] if daemon else ["--once"])]
            with self._log_file(name).open("a") as log:
                subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd=self.kit(name),
                    env=self.environment(name) | variables,
                )
            if ready and name == "server":
                self._await(lambda name=name: _listens(self.port), STARTED, f"port of {name}", name)
        for name in set(names) - {"server"} if ready else ():
            self.await_log(name, "Successfully registered client", before[name])

    def job_process(self, name: str, seconds: float = STARTED, job_id: str | None = None) -> psutil.Process:
        """A participant's own process of the job, or of any, waited for."""

        def found():
            for process in self.processes(name):
                with suppress(psutil.Error):
                    words = process.cmdline()
                    if set(JOB_PROCESSES) & set(words) and (job_id is None or job_id in words):
                        return process
            return None

        return self._await(found, seconds, f"job process of {name}", name)

    def kill(self, name: str) -> None:
        """What a power cut does: SIGKILL to all processes of a participant at once."""
        while family := self.processes(name):
            for process in family:
                # None may see another's end, or it reports it.
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            end_all(family)

    def stop(self, name: str) -> None:
        """SIGTERM to all processes of a participant, SIGKILL to those that remain."""
        for process in self.processes(name):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(self.processes(name), timeout=10)
        self.kill(name)

    # Jobs

    def admin(self, by: str = LEAD) -> AdminSession:
        """A person's session, which connects again where the server was started anew."""
        if by not in self._sessions:
            self._sessions[by] = AdminSession(self.kit(by), patience=STARTED)
        return self._sessions[by]

    def submit(self, job: Path, by: str = LEAD) -> str:
        """Submit a job's folder by FLARE's API; returns the job's id."""
        return self.admin(by).submit(job)

    def console(self, *commands: str, by: str = LEAD) -> str:
        """What FLARE's admin console prints for commands."""
        script = self.kit(by) / "startup" / "fl_admin.sh"
        told = subprocess.run(
            ["bash", str(script)],
            input="\n".join((by, *commands, "bye", "")),
            text=True,
            capture_output=True,
            timeout=STARTED,
            env=self.environment(by),
            check=True,
        )
        return told.stdout

    def meta(self, job_id: str) -> dict:
        """The server's record of a job."""
        return self.admin().meta(job_id)

    def wait(self, job_id: str, seconds: float = STARTED) -> dict:
        """The final record of a job."""

        def final():
            meta = self.meta(job_id)
            return meta if meta["status"].startswith(ENDED) else None

        return self._await(final, seconds, f"end of job {job_id}", "server")

    def await_round(self, job_id: str, n: int, seconds: float = STARTED) -> None:
        """Wait until ``n`` rounds are recorded at the server."""
        file = self.kit("server") / job_id / "app_server" / "run" / "rounds.jsonl"
        self._await(lambda: file.is_file() and len(file.read_text().splitlines()) >= n, seconds, f"round {n}", "server")

    def run_folder(self, job_id: str) -> RunFolder:
        """The run as the server has it: of the running job, or downloaded once that has ended."""
        running = self.kit("server") / job_id
        if running.is_dir():
            return find_run(running)
        return find_run(self.admin().download(job_id, self.folder / "results"))

    def log(self, name: str) -> str:
        """All that a participant's processes have printed, jobs included, over all its starts."""
        file = self._log_file(name)
        return file.read_text(errors="replace") if file.exists() else ""

    def await_log(self, name: str, text: str, after: int = 0, seconds: float = STARTED) -> None:
        """Wait until a participant's log has ``text`` after its first ``after`` characters."""
        self._await(lambda: text in self.log(name)[after:], seconds, repr(text), name)

    def _log_file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _await(self, found, seconds: float, what: str, name: str):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := found():
                return value
            time.sleep(LOOK)
        raise TimeoutError(f"no {what} within {seconds} s; the log of {name} ends with\n{self.log(name)[-3000:]}")


def _provision(folder: Path, sites: tuple[str, ...]) -> Path:
    """Kits of admin/project.yml with its server on loopback and these hospitals."""
    project = yaml.safe_load((REPOSITORY / "admin" / "project.yml").read_text())
    server, *others = project["participants"]
    known = {item["name"]: item for item in others if item["type"] == "client"}
    first = next(iter(known.values()))
    project["participants"] = [
        server | {"name": SERVER, "fed_learn_port": _free_port()},
        *(known.get(name, first | {"name": name, "org": name.replace("-", "_")}) for name in sites),
        *(item for item in others if item["type"] == "admin"),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.yml").write_text(json.dumps(project))
    made_wheel(folder / "dist" / WHEEL)
    with pytest.MonkeyPatch.context() as patch:
        assert nvflare(folder, patch, "provision", "-p", folder / "project.yml", "-w", "kits") == 0
    return folder / "kits" / project["name"] / "prod_00"


def _site_data(data: Path, name: str, index: int) -> Path:
    if (data / name).is_dir():
        return data / name
    others = sorted(file.parent for file in data.glob("*/datalist.json"))
    return others[index % len(others)]


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((SERVER, port), timeout=1):
        return True
    return False

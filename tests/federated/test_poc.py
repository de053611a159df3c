"""poc/run.py as people start it: real processes, in folders of the test's own."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from made_kits import POLICY, REPOSITORY, files, nvflare, read

from fedpeft.deploy.provision import authorization, privacy
from fedpeft.flare.rendering import ALLOW_LIST
from fedpeft.study.run.simulate import VARIABLE, end_simulation
from fedpeft.training.client.site_file import NAME, read_site_file
from fedpeft.training.server.run_folder import find_run

SCRIPT = REPOSITORY / "poc" / "run.py"
SITES = ("site-1", "site-2", "site-3")
SECONDS = 280


def _module():
    spec = importlib.util.spec_from_file_location("poc_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


poc = _module()


class Started:
    """A run of the script in ``folder``: its home, its temporary folder and its state are there."""

    def __init__(self, folder: Path, data: Path, *arguments: str) -> None:
        self.state, self.home, self.tmp = folder / "state", folder / "home", folder / "tmp"
        for path in (self.home, self.tmp):
            path.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, SCRIPT, "--state", self.state, "--data", data, "--rounds", "1", *arguments]
        ours = {"HOME": str(self.home), "TMPDIR": str(self.tmp), "OMP_NUM_THREADS": "1"}
        # Settings of another FLARE, which the script must neither use nor change.
        others = {"NVFLARE_POC_WORKSPACE": str(folder / "other"), "NVFL_AUDIT_ROOT": str(folder / "other")}
        self.process = subprocess.Popen(
            command,
            env=os.environ | ours | others,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def await_line(self, text: str) -> None:
        """Read on until a line has ``text``."""
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if text in line:
                return
        raise AssertionError(f"no {text!r} in\n{''.join(seen)}")

    def family(self) -> set[psutil.Process]:
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(VARIABLE) == str(self.state) and process.status() != psutil.STATUS_ZOMBIE:
                    found.add(process)
        return found

    def services(self) -> set[psutil.Process]:
        """Server and sites, without what starts them and without a job's processes."""
        return {process for process in self.family() if {"server_train", "client_train"} & _modules(process)}

    def end(self) -> tuple[int, str]:
        """(exit status, rest of the output); nothing is left of it."""
        output, _ = self.process.communicate(timeout=SECONDS)
        assert self.family() == set()
        assert not _listens(self.port())
        assert not (self.home / ".nvflare").exists() and not (self.state.parent / "other").exists()
        assert not (self.state / "tmp").exists() and list(self.tmp.iterdir()) == []
        return self.process.returncode, output

    def port(self) -> int:
        parts = yaml.safe_load((self.state / "project.yml").read_text())["participants"]
        (port,) = (part["fed_learn_port"] for part in parts if part["type"] == "server")
        return port

    def run(self):
        return find_run(self.state / "result")


def _modules(process):
    try:
        return {word.rsplit(".", 1)[-1] for word in process.cmdline() if word.startswith("nvflare.")}
    except psutil.Error:
        return set()


def _listens(port):
    return any(c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in psutil.net_connections("tcp"))


@pytest.fixture
def started(small_phantom):
    """A function that starts the script; whatever happens, its processes end with the test."""
    before, everything = Path("/tmp/nvflare").exists(), []

    def start(folder, *arguments, data=small_phantom):
        everything.append(Started(folder, data, *arguments))
        return everything[-1]

    yield start
    for item in everything:
        item.process.kill()
        item.process.wait()
        end_simulation(item.state)
    assert Path("/tmp/nvflare").exists() == before


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    """The kits as the script makes them, without starting anything."""
    state = tmp_path_factory.mktemp("poc")
    (state / "home").mkdir()
    (state / "project.yml").write_text(yaml.safe_dump(poc.project(20000)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(state / "home"))
        patch.setenv("NVFLARE_POC_WORKSPACE", str(state / "workspace"))
        assert nvflare(state, patch, "poc", "prepare", "-i", state / "project.yml", "--force") == 0
    poc._fill_in(state, state / "data")
    return state / poc.KITS


@pytest.mark.parametrize("name", ["localhost", *SITES])
def test_its_kits_hold_the_policy_of_admin(kits, name):
    resources = read(kits, name, "resources.json")
    assert resources["class_allow_list"] == list(ALLOW_LIST)
    assert resources["app_validator"] == {"path": "fedpeft.deploy.limits.JobFiles", "args": {}}
    assert read(kits, name, "authorization.json") == authorization()
    own = {"privacy.json"} if name in SITES else set()
    assert files(kits / name / "local") == POLICY | own | {NAME}
    assert not own or read(kits, name, "privacy.json") == privacy()
    startup = json.loads(next((kits / name / "startup").glob("fed_*.json")).read_text())
    assert startup["require_signed_jobs"] is True and startup["servers"][0]["service"]["target"] == "localhost:20000"


def test_its_site_files_permit_the_jobs_method_and_no_other(kits):
    for name in SITES:
        site = read_site_file(kits / name / "local" / NAME, name)
        site.admit("flap_sam", 1000)
        with pytest.raises(ValueError, match="does not permit"):
            site.admit("lora_ft", 1000)
        assert site.datalist("phantom").parts[-2:] == (name, "datalist.json")


def test_ctrl_c_while_it_starts_leaves_nothing(started, tmp_path):
    it = started(tmp_path)
    it.await_line("making kits")
    while not it.family():
        assert it.process.poll() is None
    it.process.send_signal(signal.SIGINT)
    assert it.end()[0] == 128 + signal.SIGINT


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_trains_it_leaves_nothing(started, tmp_path, number):
    it = started(tmp_path)
    it.await_line("running")
    assert len(it.family()) > 8 and _listens(it.port())
    it.process.send_signal(number)
    assert it.end()[0] == 128 + number


@pytest.mark.slow
def test_a_job_that_does_not_finish_is_a_failure(started, small_phantom, tmp_path):
    data = tmp_path / "data"
    for name in SITES:
        (data / name).mkdir(parents=True)
    it = started(tmp_path, data=data)
    status, output = it.end()
    assert status == 1
    assert "did not finish" in output and "0 accepted results, 3 needed" in output and "evaluate" not in output


@pytest.mark.slow
def test_twice_in_a_row_with_the_simulators_weights(started, federation, tmp_path):
    paths = set()
    job = replace(poc.JOB, run=poc.JOB.run.with_(rounds=1))
    _, simulated = federation(tmp_path / "simulated", job, SITES, 3)
    for _ in range(2):
        it = started(tmp_path / "it")
        status, output = it.end()
        assert status == 0 and "round 1/1" in output and "fedpeft evaluate --run" in output
        assert it.run().description["status"] == "finished"
        tensors = it.run().tensors()
        assert all(tensors[key].equal(value) for key, value in simulated.tensors().items())
        paths.add(it.run().path)
    assert len(paths) == 2


@pytest.mark.slow
def test_beside_another(started, tmp_path):
    other = started(tmp_path / "other", "--keep")
    other.await_line("console")
    services = other.services()
    it = started(tmp_path / "it")
    assert it.end()[0] == 0 and it.port() != other.port()
    tensors = other.run().tensors()
    assert all(tensors[key].equal(value) for key, value in it.run().tensors().items())
    assert other.services() == services and len(services) == 1 + len(SITES) and _listens(other.port())
    other.process.send_signal(signal.SIGINT)
    assert other.end()[0] == 0

"""A comparison killed at any time, with no chance to tidy up, and started again ends as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import doubles
import psutil
import pytest

from fedpeft.study.plan.experiments import Plan
from fedpeft.study.run import compare as study
from fedpeft.study.run import work
from fedpeft.study.run.compare import compare
from fedpeft.study.run.simulate import VARIABLE

SETTINGS = ["local", "federated", "centralized"]
EXPERIMENTS = ["initial", "local/site-1", "local/site-2", "federated", "centralized"]


class Death:
    """Kills this process at its n-th write, rename or removal, half-way through it."""

    def __init__(self, patch, number):
        self.left = number
        for owner, name in ((Path, "replace"), (Path, "rename"), (shutil, "rmtree")):
            patch.setattr(owner, name, self._deadly(getattr(owner, name)))

    def _deadly(self, original):
        def call(path, *args, **kwargs):
            self.left -= 1
            if self.left == 0:
                if Path(path).is_file():
                    Path(path).write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2])
                elif original.__name__ == "rmtree":
                    for file in [file for file in Path(path).rglob("*") if file.is_file()][::2]:
                        file.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(path, *args, **kwargs)

        return call


def live(plan, run, number):
    """Compare in a process of its own that dies at its n-th write; returns whether it came to its end.

    The process is a fork, so that a life costs no imports; worker processes and the simulator are stand-ins.
    """
    child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(study, "ProcessPoolExecutor", doubles.Here)
                patch.setattr(work, "simulate", doubles.simulate)
                Death(patch, number)
                compare(plan, [run], SETTINGS, lambda progress, event: None)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return status == 0


def finished(plan):
    """Finished experiment -> what its files are on the disk, and when each was written."""
    root = plan.out / "flap_sam" / "seed-0"
    return {
        name: {
            file: (file.stat().st_ino, file.stat().st_mtime_ns)
            for file in sorted((root / name).rglob("*"))
            if file.is_file()
        }
        for name in EXPERIMENTS
        if (root / name / "scores-test.json").is_file()
    }


def results_of(plan):
    return {name: (plan.out / name).read_bytes() for name in ("results.json", "cases.csv", "table.md", "table.csv")}


@pytest.fixture(scope="module")
def short(run):
    return run.with_(local_epochs=0.2)


@pytest.fixture(scope="module")
def undisturbed(compared, two_sites, checkpoint, short, tmp_path_factory):
    """Made after a comparison in this process, so that a fork has all that torch imports at its first use."""
    plan = Plan(two_sites, tmp_path_factory.mktemp("undisturbed"), checkpoint, seconds=1)
    assert live(plan, short, 10_000)
    return plan


def test_lives_that_end_in_the_middle_of_a_write(undisturbed, two_sites, checkpoint, short, tmp_path):
    plan = Plan(two_sites, tmp_path / "out", checkpoint, seconds=1)
    numbers, before, lives = random.Random(0), {}, 1
    while not live(plan, short, numbers.randint(5, 40)):
        now = finished(plan)
        assert before == {name: now[name] for name in before}, "a finished experiment was touched"
        before, lives = now, lives + 1
    assert lives > 3
    assert results_of(plan) == results_of(undisturbed)
    assert sorted(file.name for file in plan.out.rglob("*.attempt-*")) == []
    assert sorted(file.name for file in plan.out.rglob(".*")) == [".lock"]


@pytest.mark.parametrize("number", range(1, 7))
def test_a_life_that_ends_while_the_results_are_written(undisturbed, short, tmp_path, number):
    """All experiments are there; results.json, times.json, cases.csv and the tables are written, each by one rename."""
    plan = Plan(undisturbed.data, tmp_path / "out", undisturbed.checkpoint, seconds=1)
    shutil.copytree(undisturbed.out, plan.out)
    before = finished(plan)
    assert live(plan, short, number) == (number > 5)
    assert live(plan, short, 10_000)
    assert finished(plan) == before
    assert results_of(plan) == results_of(undisturbed)


@pytest.fixture
def command(tmp_path):
    """A function that starts the real command, its output a line an event; what it leaves ends with the test."""
    started = []

    def start(data, out, *options):
        arguments = ["compare", "--data", data, "--side", "32", "--out", out, *options]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "fedpeft.cli.main", *map(str, arguments)],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in (*started, *marked(tmp_path)):
        process.kill()


def read_until(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the command ended with {process.wait()} before it said {text!r}")


def marked(out):
    """Processes of simulations below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            workspace = process.environ().get(VARIABLE, "")
        except (psutil.Error, OSError):
            continue
        if workspace.startswith(str(out)) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_the_command_killed_while_it_trains(command, compared, run, here, tmp_path):
    """With real worker processes: they end with the comparison, and the next one takes over."""
    plan, _ = compared
    shutil.copytree(plan.out, tmp_path / "reference")
    reference = Plan(plan.data, tmp_path / "reference", plan.checkpoint, seconds=1)
    compare(reference, [run], ["centralized"], lambda progress, event: None)

    out = tmp_path / "out"
    options = [
        "--settings",
        "centralized",
        "--rounds",
        run.federation.rounds,
        "--batch",
        run.training.batch,
        "--local-epochs",
        run.training.local_epochs,
        "--learning-rate",
        run.training.learning_rate,
    ]
    first = command(plan.data, out, *options)
    read_until(first, "begins")
    time.sleep(random.Random(0).uniform(0, 1))
    workers = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    assert not (out / "results.json").exists()

    second = command(plan.data, out, *options)
    printed = second.stdout.read()
    assert second.wait() == 0
    assert (out / "results.json").read_bytes() == (reference.out / "results.json").read_bytes()
    assert "Centralized" in printed
    assert sorted(out.rglob("*.attempt-*")) == []


@pytest.mark.slow
def test_the_command_killed_while_the_simulator_runs(command, two_sites, tmp_path):
    """First alone, then together with the process that watches over its simulator, which is then left behind."""
    options = ["--settings", "federated", "--rounds", "2"]
    out = tmp_path / "out"
    first = command(two_sites, out, *options)
    read_until(first, "federated: round 1 of 2")
    assert len(marked(out)) >= 3
    first.kill()
    first.wait()
    end = time.monotonic() + 20
    while marked(out) and time.monotonic() < end:
        time.sleep(0.2)
    assert marked(out) == []

    second = command(two_sites, out, *options)
    read_until(second, "federated: round 1 of 2")
    family = psutil.Process(second.pid).children(recursive=True)
    second.kill()
    for process in family:
        if process not in marked(out):
            process.kill()
    second.wait()
    left = marked(out)
    assert left

    third = command(two_sites, out, *options)
    third.stdout.read()
    assert third.wait() == 0
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in left)
    assert sorted(out.rglob("*.attempt-*")) == []
    whole = command(two_sites, tmp_path / "whole", *options)
    whole.stdout.read()
    assert whole.wait() == 0
    assert (out / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()

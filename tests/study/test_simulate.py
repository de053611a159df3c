"""Ending what a killed simulation left: without FLARE, with processes that behave as its clients do."""

import subprocess
import sys
import time

import psutil
import pytest

from fedpeft.config.run import make_run
from fedpeft.flare.round_line import final_line, is_final_line, round_line
from fedpeft.study.run.simulate import VARIABLE, end_simulation

# A server that starts two clients in sessions of their own and ends: nothing but the variable leads to them.
SERVER = """
import subprocess, sys, time
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("up", flush=True)
if sys.argv[1] == "ends":
    sys.exit()
time.sleep(60)
"""


@pytest.fixture
def started(monkeypatch):
    """A function that starts a stand-in for a simulator and returns its processes; all end with the test."""
    everything = []

    def start(workspace, ends):
        monkeypatch.setenv(VARIABLE, str(workspace))
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, "ends" if ends else "stays"], stdout=subprocess.PIPE, text=True
        )
        monkeypatch.delenv(VARIABLE)
        assert process.stdout.readline() == "up\n"
        if ends:
            process.wait()
        found = [p for p in psutil.process_iter() if _workspace(p) == str(workspace)]
        everything.extend(found)
        return found

    yield start
    for process in everything:
        if process.is_running():
            process.kill()


def _workspace(process):
    try:
        return process.environ().get(VARIABLE)
    except psutil.Error:
        return None


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("ends", [True, False])
def test_all_of_a_simulation_ends_and_nothing_else(started, tmp_path, ends):
    mine, other = started(tmp_path / "one", ends), started(tmp_path / "one-more", ends)
    assert (len(mine), len(other)) == ((2, 2) if ends else (3, 3))
    end_simulation(tmp_path / "one")
    assert alive(mine) == []
    assert alive(other) == other


def test_ending_what_never_ran_is_quick(tmp_path):
    begin = time.monotonic()
    end_simulation(tmp_path)
    assert time.monotonic() - begin < 5


def test_only_the_line_after_the_last_round_is_the_final_one():
    run = make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=3)
    site = {"dice": {}, "loss": 0.5, "bytes_up": 1, "bytes_down": 1}
    record = {"sites": {"after": site}, "refused": {}, "silent": [], "averaging": {}, "seconds": 1.0}
    assert is_final_line(f"a time - INFO - {final_line(3, run, {}, {})}")
    assert not is_final_line(f"a time - INFO - {round_line(2, run, record)}")

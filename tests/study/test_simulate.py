"""Following a simulation by its files, and ending what a killed one left: without FLARE, with stand-ins."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from fedpeft.study.run import simulate as simulate_module
from fedpeft.study.run.follow import RunFollower
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
        # The environment of a process cannot be read for an instant while it starts.
        found, until = [], time.monotonic() + 20
        while len(found) < (2 if ends else 3) and time.monotonic() < until:
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


@pytest.fixture
def followed(tmp_path):
    """A folder that is not there yet, its follower, and the rounds that were reported."""
    rounds = []
    return tmp_path / "run", RunFollower(tmp_path / "run", lambda record: rounds.append(record["round"])), rounds


def write(folder, status, text):
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(status)
    (folder / "rounds.jsonl").write_text(text)


def record(number):
    return json.dumps({"round": number, "seconds": 1.0}) + "\n"


def test_every_round_is_reported_once(followed):
    folder, follower, rounds = followed
    assert not follower.look() and rounds == []
    folder.mkdir()
    (folder / "run.json").write_text('{"status": "running"}')
    assert not follower.look() and rounds == []
    write(folder, '{"status": "running"}', record(0))
    assert not follower.look() and not follower.look() and rounds == [0]
    write(folder, '{"status": "finished"}', record(0) + record(1) + record(2))
    assert follower.look() and rounds == [0, 1, 2]


def test_a_half_written_line_is_read_when_it_is_whole(followed):
    folder, follower, rounds = followed
    whole = record(0) + record(1)
    for end in range(len(record(0)), len(whole)):
        write(folder, '{"status": "running"}', whole[:end])
        follower.look()
        assert rounds == [0]
    write(folder, '{"status": "running"}', whole)
    follower.look()
    assert rounds == [0, 1]


@pytest.mark.parametrize("text", ["", '{"status": "fin', '{"status": "failed: no site answered"}', "{}"])
def test_a_run_is_finished_only_when_its_file_says_so(followed, text):
    folder, follower, _ = followed
    write(folder, text, "")
    assert not follower.look()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["a", "x - ERROR - Traceback (most recent call last):", "ValueError: no 'm'"], "ValueError: no 'm'"),
        (["x - ERROR - no site answered"], "x - ERROR - no site answered"),
        (["all is well"], "no error was logged"),
    ],
)  # fmt: skip
def test_the_reason_of_a_job_that_did_not_start_is_found_in_the_log(lines, expected, tmp_path):
    log = tmp_path / "workspace.log"
    log.write_text("\n".join(lines))
    assert simulate_module._first_error(log) == expected

"""The launcher of a kit on real small processes: what is started again, how often, and what FLARE is told."""

import logging
import os
import sys
import time
from functools import partial
from signal import SIGKILL
from threading import Thread
from types import SimpleNamespace

import psutil
import pytest
from nvflare.apis.fl_constant import FLContextKey, FLMetaKey, JobConstants, ReservedKey, RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobProcessArgs, JobReturnCode
from nvflare.apis.workspace import Workspace
from nvflare.private.fed.client.client_executor import REPORTABLE_JOB_FAILURES
from nvflare.private.fed.client.client_status import ClientStatus
from nvflare.private.fed.utils.fed_utils import get_return_code
from nvflare.utils.process_utils import spawn_process

from fedpeft.deploy.launcher import RESTARTS, RestartedJob, RestartingLauncher

JOB = "a-job"
# Each start adds a line; the n-th does what the n-th argument says, the last one from then on.
PROGRAM = """
import os, pathlib, sys
file, *does = sys.argv[1:]
with open(file, "a") as stream:
    stream.write("started\\n")
number = len(pathlib.Path(file).read_text().splitlines())
what = int(does[min(number, len(does)) - 1])
if what < 0:
    os.kill(os.getpid(), -what)
sys.exit(what)
"""


@pytest.fixture
def starts(tmp_path):
    """A function that waits for a job whose starts end with these codes, and returns it and how often it ran."""
    folder = tmp_path / JOB
    folder.mkdir()

    def run(*codes, wanted=lambda: True):
        file = folder / "starts"
        arguments = [sys.executable, "-c", PROGRAM, str(file), *map(str, codes)]
        job = RestartedJob(partial(spawn_process, arguments, {}), wanted, folder)
        job.wait()
        return job, len(file.read_text().splitlines())

    return run


@pytest.mark.parametrize(
    ("codes", "ran", "reported"),
    [
        ([0], 1, JobReturnCode.SUCCESS),
        ([1], 1, JobReturnCode.EXECUTION_ERROR),
        ([-9, 0], 2, JobReturnCode.SUCCESS),
        ([-11, -9, 0], 3, JobReturnCode.SUCCESS),
        # It came back too late, and finds no server: the others' job is not to fail for that.
        ([-9, 101], 2, JobReturnCode.UNKNOWN),
        ([-9], 1 + RESTARTS, JobReturnCode.UNKNOWN),
    ],
)
def test_a_process_ended_by_a_signal_is_started_again(starts, tmp_path, codes, ran, reported):
    job, times = starts(*codes)
    assert times == ran
    assert get_return_code(job, JOB, str(tmp_path), logging.getLogger()) == reported
    assert reported not in REPORTABLE_JOB_FAILURES or codes == [1]


def test_flares_own_file_of_a_code_fails_no_job_after_a_restart(starts, tmp_path):
    (tmp_path / JOB / FLMetaKey.PROCESS_RC_FILE).write_text("101")
    job, _ = starts(-9, 101)
    assert get_return_code(job, JOB, str(tmp_path), logging.getLogger()) == JobReturnCode.UNKNOWN


def test_the_log_says_what_how_often_and_the_remedy(starts, caplog):
    starts(-9)
    lines = [record.getMessage() for record in caplog.records if record.name == "fedpeft.deploy.launcher"]
    assert len(lines) == RESTARTS + 1
    assert all(f"job {JOB} was ended by signal 9 (Killed)" in line and "out of memory" in line for line in lines)
    assert "started again (1 of 3)" in lines[0] and "for the 4th time, so this site leaves the job" in lines[-1]


def test_a_job_that_is_over_or_aborted_is_not_started_again(starts):
    assert starts(-9, wanted=lambda: False)[1] == 1


def test_what_flare_ends_stays_ended(tmp_path):
    arguments = [sys.executable, "-c", "import signal; signal.pause()"]
    job = RestartedJob(partial(spawn_process, arguments, {}), lambda: True, tmp_path)
    assert job.poll() == JobReturnCode.UNKNOWN
    job.terminate()
    job.wait()
    assert job.poll() == JobReturnCode.UNKNOWN and not job._deaths


def test_a_process_that_cannot_be_started_again_leaves_no_thread_waiting(tmp_path, caplog):
    processes = iter([spawn_process([sys.executable, "-c", PROGRAM, str(tmp_path / "starts"), "-9"], {})])

    def start():
        for process in processes:
            return process
        raise OSError("Cannot allocate memory")

    RestartedJob(start, lambda: True, tmp_path).wait()
    assert "could not be started again: Cannot allocate memory" in caplog.text


SEEING = """
import os, signal, sys
with open(sys.argv[1], "a") as stream:
    print(os.environ["CUDA_VISIBLE_DEVICES"], os.environ["NVFLARE_JOB_AUTH_TOKEN"], file=stream)
signal.pause()
"""


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """The handle of a job as FLARE's client launches it, what the client knows of it, and what each start has seen."""
    for folder in ("startup", "local"):
        (tmp_path / folder).mkdir()
    known = {RunProcessKey.STATUS: ClientStatus.STARTED, "_abort_requested": False}
    fl_ctx = FLContext()
    for key, value in {
        ReservedKey.ENGINE: SimpleNamespace(client_executor=SimpleNamespace(run_processes={JOB: known})),
        FLContextKey.WORKSPACE_OBJECT: Workspace(str(tmp_path), "hospital-1"),
        FLContextKey.JOB_PROCESS_ARGS: {JobProcessArgs.AUTH_TOKEN: ("-t", "token")},
    }.items():
        fl_ctx.set_prop(key, value, private=True, sticky=False)
    (tmp_path / "program.py").write_text(SEEING)
    seen = tmp_path / "seen"
    command = f"{sys.executable} {tmp_path / 'program.py'} {seen}"
    monkeypatch.setattr(RestartingLauncher, "get_command", lambda *_: command)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    handle = RestartingLauncher().launch_job({JobConstants.JOB_ID: JOB}, fl_ctx)
    yield handle, known, seen
    handle.terminate()


def waited(seen, lines):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if seen.is_file() and len(found := seen.read_text().splitlines()) == lines:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{seen} does not have {lines} lines")


def test_a_restart_has_the_first_ones_gpus_and_credentials(launched, monkeypatch):
    handle, _, seen = launched
    waiting = Thread(target=handle.wait)
    waiting.start()
    waited(seen, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    os.kill(handle._process.pid, SIGKILL)
    assert waited(seen, 2) == ["3 token", "3 token"]
    handle.terminate()
    waiting.join()


@pytest.mark.parametrize(
    "change", [{RunProcessKey.STATUS: ClientStatus.STOPPED}, {"_abort_requested": True}], ids=["over", "aborted"]
)
def test_flares_client_knows_that_a_job_is_over(launched, change):
    handle, known, seen = launched
    waited(seen, 1)
    known.update(change)
    os.kill(handle._process.pid, SIGKILL)
    handle.wait()
    assert len(seen.read_text().splitlines()) == 1 and not psutil.pid_exists(handle._process.pid)

"""What flare/internals.py takes from FLARE's private parts is there in the installed FLARE, and does what it did."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import Task
from nvflare.apis.fl_constant import RunProcessKey, SystemComponents
from nvflare.apis.impl import wf_comm_server
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.private.fed.app.simulator import simulator_runner
from nvflare.private.fed.client.client_executor import JobExecutor
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
from nvflare.private.fed.client.client_status import ClientStatus
from nvflare.private.fed.server.job_runner import JobRunner
from nvflare.private.fed.server.server_engine import ServerEngine

from fedpeft.flare import internals
from fedpeft.flare.controller import AdapterRounds

PACKAGE = Path(internals.__file__).parents[1]
PRIVATE = re.compile(r"nvflare\.private|nvflare\.[\w.]+ import \(?\s*_\w+")


def test_flare_looks_at_a_task_as_often_as_the_job_says(monkeypatch):
    communicator, task, waited = wf_comm_server.WFCommServer(), Task("train", Shareable()), []

    def sleep(seconds):
        waited.append(seconds)
        task.props[wf_comm_server._TASK_KEY_DONE] = True

    AdapterRounds(1, 0, 0, task_check_period=0.015).set_communicator(communicator)
    # The module's own name for it: threads of other tests go on sleeping for real.
    monkeypatch.setattr(wf_comm_server, "time", SimpleNamespace(sleep=sleep))
    communicator.wait_for_task(task, Signal())
    assert waited == [0.015]


def test_flare_says_in_these_words_that_too_few_sites_are_left():
    assert f'"{internals.TOO_FEW_SITES}"' in inspect.getsource(wf_comm_server.WFCommServer)


def test_the_simulator_starts_this_module_for_a_site():
    assert importlib.util.find_spec(internals.SIMULATED_SITE)
    assert internals.SIMULATED_SITE in inspect.getsource(simulator_runner)


@pytest.mark.parametrize(
    ("status", "told", "wanted"),
    [
        (ClientStatus.STARTED, False, True),
        (ClientStatus.STARTED, True, False),
        (ClientStatus.STOPPED, False, False),
    ],
)
def test_a_clients_job_is_wanted_until_it_is_over_or_aborted(status, told, wanted):
    """The record is FLARE's own: its keys are those that the executor's launch writes and its abort changes."""
    executor = JobExecutor(SimpleNamespace(), "")
    assert "_ABORT_REQUESTED_KEY: False" in inspect.getsource(JobExecutor)
    assert "[_ABORT_REQUESTED_KEY] = True" in inspect.getsource(JobExecutor.abort_app)
    executor.run_processes["job"] = {RunProcessKey.STATUS: status, "_abort_requested": told}
    assert internals.job_is_wanted(SimpleNamespace(client_executor=executor), "job") == wanted


def test_the_shell_commands_are_found_once_and_no_other_is_removed(monkeypatch):
    before = [*ClientRequestProcessors.request_processors]
    monkeypatch.setattr(ClientRequestProcessors, "request_processors", [*before])
    assert internals.remove_shell_commands()
    gone = {type(item).__name__ for item in before} - {
        type(item).__name__ for item in ClientRequestProcessors.request_processors
    }
    assert gone == {"ShellCommandProcessor"}
    assert not internals.remove_shell_commands()


def test_a_servers_running_jobs_are_read_from_its_own_record():
    client = Client("hospital-1", "token")
    engine = SimpleNamespace(run_processes={"job": {RunProcessKey.PARTICIPANTS: {"token": client}}})
    assert internals.participants(engine) == {"job": {"token": client}}
    source = inspect.getsource(ServerEngine)
    assert "self.run_processes = {}" in source and "RunProcessKey.PARTICIPANTS: job_clients" in source


def test_a_running_job_is_told_that_a_site_has_left():
    told = []
    runner = SimpleNamespace(resolve_client_outcome=lambda *names: told.append(names))
    engine = SimpleNamespace(
        notify_dead_job=lambda *names: told.append(names),
        get_component={SystemComponents.JOB_RUNNER: runner}.__getitem__,
    )
    internals.declare_lost(engine, "job", "hospital-1", "started anew")
    assert told == [("job", "hospital-1", "started anew"), ("job", "hospital-1")]
    assert list(inspect.signature(ServerEngine.notify_dead_job).parameters)[1:] == ["job_id", "client_name", "reason"]
    assert list(inspect.signature(JobRunner.resolve_client_outcome).parameters)[1:] == ["job_id", "client_name"]


def test_no_other_file_names_a_private_module_of_flare():
    named = {path for path in PACKAGE.rglob("*.py") if PRIVATE.search(path.read_text())}
    assert named == {Path(internals.__file__)}

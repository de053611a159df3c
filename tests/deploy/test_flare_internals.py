"""What deploy/ takes from inside FLARE is where it was; if one of these fails, flare_internals.py says what breaks."""

import ast
import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvflare.apis.client import Client
from nvflare.apis.fl_constant import RunProcessKey
from nvflare.private.fed.client.client_executor import JobExecutor
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
from nvflare.private.fed.client.client_status import ClientStatus
from nvflare.private.fed.client.shell_cmd import ShellCommandProcessor
from nvflare.private.fed.server.job_runner import JobRunner
from nvflare.private.fed.server.server_engine import ServerEngine

import fedpeft.deploy
from fedpeft.deploy import flare_internals


def test_no_other_module_of_the_layer_reaches_into_flare():
    for file in Path(fedpeft.deploy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and file.name != "flare_internals.py":
                assert not node.module.startswith("nvflare.private"), f"{file}:{node.lineno}"
                names = [alias.name for alias in node.names if node.module.startswith("nvflare")]
                assert not [name for name in names if name.startswith("_")], f"{file}:{node.lineno}"


def test_flares_client_serves_a_shell_by_one_processor(monkeypatch):
    kept = [*ClientRequestProcessors.request_processors]
    monkeypatch.setattr(ClientRequestProcessors, "request_processors", kept)
    assert sum(isinstance(item, ShellCommandProcessor) for item in kept) == 1
    before = len(kept)
    assert flare_internals.remove_shell_commands() and len(ClientRequestProcessors.request_processors) == before - 1
    assert not flare_internals.remove_shell_commands()


@pytest.mark.parametrize(
    ("status", "aborted", "wanted"),
    [
        (ClientStatus.STARTED, False, True),
        (ClientStatus.STOPPED, False, False),
        (ClientStatus.STARTED, True, False),
    ],
)
def test_flares_client_knows_which_jobs_go_on(tmp_path, status, aborted, wanted):
    executor = JobExecutor(SimpleNamespace(), str(tmp_path))
    executor.run_processes["a"] = {RunProcessKey.STATUS: status, flare_internals._ABORT_REQUESTED_KEY: aborted}
    assert flare_internals.job_is_wanted(SimpleNamespace(client_executor=executor), "a") == wanted
    assert "_ABORT_REQUESTED_KEY: False" in inspect.getsource(JobExecutor), "FLARE enters the key for every job"


def test_flares_server_knows_who_takes_part():
    """FLARE's own class without its start, which opens ports."""
    engine, client = ServerEngine.__new__(ServerEngine), Client("hospital-1", "a token")
    engine.run_processes = {"a": {RunProcessKey.PARTICIPANTS: {"a token": client}}}
    assert flare_internals.participants(engine) == {"a": {"a token": client}}
    assert "self.run_processes" in inspect.getsource(ServerEngine)


def test_a_lost_client_is_no_longer_waited_for(tmp_path, monkeypatch):
    engine, runner, told = ServerEngine.__new__(ServerEngine), JobRunner(str(tmp_path)), []
    runner._pending_client_outcomes["a"] = {"hospital-1", "hospital-2"}
    engine.run_manager = None
    monkeypatch.setattr(ServerEngine, "get_component", lambda self, name: {"job_runner": runner}[name])
    monkeypatch.setattr(ServerEngine, "send_command_to_child_runner_process", lambda self, **sent: told.append(sent))
    engine.logger = SimpleNamespace(warning=lambda text: None)
    flare_internals.declare_lost(engine, "a", "hospital-1", "it was started anew")
    assert runner._pending_client_outcomes["a"] == {"hospital-2"}
    assert [(item["job_id"], item["command_name"]) for item in told] == [("a", "handle_dead_job")]

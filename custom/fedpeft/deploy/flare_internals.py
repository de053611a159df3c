"""The private parts of FLARE 2.9 that deploy/ uses, one function for each; each has a test that it is still there."""

from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.fl_constant import RunProcessKey, SystemComponents
from nvflare.private.fed.client.client_executor import _ABORT_REQUESTED_KEY
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
from nvflare.private.fed.client.client_status import ClientStatus
from nvflare.private.fed.client.shell_cmd import ShellCommandProcessor


def remove_shell_commands() -> bool:
    """Take cat, grep, head, tail, ls and pwd from what this client does for a server; whether they were there.

    If FLARE keeps them elsewhere, this returns False and a site could still be read: its client must not start.
    """
    processors = ClientRequestProcessors.request_processors
    kept = [item for item in processors if not isinstance(item, ShellCommandProcessor)]
    found = len(kept) < len(processors)
    processors[:] = kept
    return found


def job_is_wanted(engine: Any, job: str) -> bool:
    """Whether a job of this client is neither over nor aborted.

    If FLARE keeps this elsewhere, a job process that a signal ended raises here and is not started again.
    """
    known = engine.client_executor.run_processes[job]
    return known[RunProcessKey.STATUS] != ClientStatus.STOPPED and not known[_ABORT_REQUESTED_KEY]


def participants(engine: Any) -> dict[str, dict[str, Client]]:
    """Running job -> the server's clients in it, by token.

    If FLARE keeps this elsewhere, no site that comes late enters a run.
    """
    return {job: process[RunProcessKey.PARTICIPANTS] for job, process in list(engine.run_processes.items())}


def declare_lost(engine: Any, job: str, client: str, reason: str) -> None:
    """Tell a running job that a client has forgotten it, and FLARE's runner not to wait for that client's last word.

    If FLARE changes either, a job waits for minutes for a client that was started anew.
    """
    engine.notify_dead_job(job, client, reason)
    engine.get_component(SystemComponents.JOB_RUNNER).resolve_client_outcome(job, client)

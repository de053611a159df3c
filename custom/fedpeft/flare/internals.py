"""All uses of FLARE's internals, each with what breaks when FLARE changes it.

No other file names a private attribute, a private module or a text of FLARE. tests/federated/test_internals.py compares
each with the installed FLARE, so an incompatible version fails there and not in a hospital. FLARE is imported inside
the functions, since client, server and commands need different parts of it.
"""

from typing import Any

# WFCommServer's fatal error when fewer sites than the job's min_clients are left. If the text changes, run.json calls
# such an end "failed", and the server does not continue the run once the sites are back.
TOO_FEW_SITES = "Aborting job due to deployment policy violation"

# The module that FLARE's simulator starts for every site. If it changes, a simulation counts as over, and its sites are
# killed, while they still tidy up.
SIMULATED_SITE = "nvflare.private.fed.app.simulator.simulator_worker"


def check_tasks_every(communicator: Any, seconds: float) -> None:
    """Let FLARE check the state of a round's task every ``seconds``.

    ``Controller.set_communicator`` sets ``task_check_period``, but ``WFCommServer`` reads ``_task_check_period``. If
    that changes, a round takes up to 0.2 s longer.
    """
    communicator._task_check_period = seconds


def job_is_wanted(engine: Any, job: str) -> bool:
    """Whether a client's job is neither over nor aborted.

    ``engine.client_executor.run_processes[job]`` is the client's own record of the job. If its keys change, the
    launcher's thread ends with a KeyError and does not restart a job process that died.
    """
    from nvflare.apis.fl_constant import RunProcessKey
    from nvflare.private.fed.client.client_executor import _ABORT_REQUESTED_KEY
    from nvflare.private.fed.client.client_status import ClientStatus

    known = engine.client_executor.run_processes[job]
    return known[RunProcessKey.STATUS] != ClientStatus.STOPPED and not known[_ABORT_REQUESTED_KEY]


def remove_shell_commands() -> bool:
    """Remove FLARE's remote cat, grep, head, tail, ls and pwd from this client; return whether they were found.

    FLARE's client registers ``ClientRequestProcessors.request_processors`` at its start. If that changes, this returns
    False, and the client must not start: a server could read any file that the client's user can read.
    """
    from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
    from nvflare.private.fed.client.shell_cmd import ShellCommandProcessor

    processors = ClientRequestProcessors.request_processors
    kept = [item for item in processors if not isinstance(item, ShellCommandProcessor)]
    found = len(kept) < len(processors)
    processors[:] = kept
    return found


def participants(engine: Any) -> dict[str, dict[str, Any]]:
    """Job -> token -> FLARE's record of the client, for the running jobs of a server.

    ``ServerEngine.run_processes`` is the server's own record. If it changes, a site that connects late does not enter
    the run with the next job.
    """
    from nvflare.apis.fl_constant import RunProcessKey

    return {job: process[RunProcessKey.PARTICIPANTS] for job, process in list(engine.run_processes.items())}


def declare_lost(engine: Any, job: str, site: str, reason: str) -> None:
    """Tell a running job of the server that a restarted site no longer takes part in it.

    FLARE itself calls ``ServerEngine.notify_dead_job`` and ``JobRunner.resolve_client_outcome``. If they change, the
    job waits for the restarted site until FLARE's own limits, minutes later.
    """
    from nvflare.apis.fl_constant import SystemComponents

    engine.notify_dead_job(job, site, reason)
    engine.get_component(SystemComponents.JOB_RUNNER).resolve_client_outcome(job, site)

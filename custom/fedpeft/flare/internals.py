"""Everything of FLARE that we touch and FLARE does not promise, each with what breaks when it changes.

No other file names a private attribute, a private module or a text of FLARE. tests/federated/test_internals.py compares
each of them with the installed FLARE, so a new version that lacks one fails there and not in a hospital. FLARE is
imported where it is used: its client, its server and our commands need different parts of it.
"""

from typing import Any

# What WFCommServer says in a fatal error when sites were lost and fewer than the job's min_clients are left. If the
# text changes, run.json calls such an end "failed", and the server does not continue the run once the sites are back.
TOO_FEW_SITES = "Aborting job due to deployment policy violation"

# Module that FLARE's simulator starts for every site. If it changes, a simulation is taken to be over while its sites
# still tidy up, and they are killed.
SIMULATED_SITE = "nvflare.private.fed.app.simulator.simulator_worker"


def check_tasks_every(communicator: Any, seconds: float) -> None:
    """Let FLARE look at the state of a round's task as often as the job says.

    ``Controller.set_communicator`` sets ``task_check_period``, which nothing reads: ``WFCommServer`` waits for
    ``_task_check_period``. If that changes, a round takes up to 0.2 s longer.
    """
    communicator._task_check_period = seconds


def job_is_wanted(engine: Any, job: str) -> bool:
    """Whether a client's job is neither over nor aborted.

    ``engine.client_executor.run_processes[job]`` is the client's own record of it. If its keys change, a job process
    that died is not started again: the launcher's thread ends with a KeyError.
    """
    from nvflare.apis.fl_constant import RunProcessKey
    from nvflare.private.fed.client.client_executor import _ABORT_REQUESTED_KEY
    from nvflare.private.fed.client.client_status import ClientStatus

    known = engine.client_executor.run_processes[job]
    return known[RunProcessKey.STATUS] != ClientStatus.STOPPED and not known[_ABORT_REQUESTED_KEY]


def remove_shell_commands() -> bool:
    """Take FLARE's remote cat, grep, head, tail, ls and pwd from this client.

    ``ClientRequestProcessors.request_processors`` is what FLARE's client registers at its start. If it changes, this
    returns False, and the client must not start: a server could read any file that the client's user can read.
    """
    from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
    from nvflare.private.fed.client.shell_cmd import ShellCommandProcessor

    processors = ClientRequestProcessors.request_processors
    kept = [item for item in processors if not isinstance(item, ShellCommandProcessor)]
    found = len(kept) < len(processors)
    processors[:] = kept
    return found


def participants(engine: Any) -> dict[str, dict[str, Any]]:
    """Job -> token -> FLARE's record of the client, for the jobs that run at a server.

    ``ServerEngine.run_processes`` is the server's own record. If it changes, a site that comes late does not enter the
    run with the next job.
    """
    from nvflare.apis.fl_constant import RunProcessKey

    return {job: process[RunProcessKey.PARTICIPANTS] for job, process in list(engine.run_processes.items())}


def declare_lost(engine: Any, job: str, site: str, reason: str) -> None:
    """Tell a running job of a server that a site has forgotten it.

    ``ServerEngine.notify_dead_job`` and ``JobRunner.resolve_client_outcome`` are what FLARE itself calls. If they
    change, the job waits for a site that was started anew until FLARE's own limits, minutes later.
    """
    from nvflare.apis.fl_constant import SystemComponents

    engine.notify_dead_job(job, site, reason)
    engine.get_component(SystemComponents.JOB_RUNNER).resolve_client_outcome(job, site)

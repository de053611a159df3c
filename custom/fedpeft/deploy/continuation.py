"""Continue a run in another job when its job ends early; the server's ``local/resources.json`` names the component.

FLARE leaves a job whose server was killed marked as running, and lets no site into a running job. This component starts
the run's next job, a clone of the last one with the same signed content, when the server was killed, a job died, or a
site waits to enter. It clones only jobs that this server had accepted, and every site checks signature and rights
again. The run ends after ``ATTEMPTS`` jobs without a finished round.
"""

import shutil
import time
from pathlib import Path
from threading import RLock
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, SystemComponents
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import Job, JobMetaKey, RunStatus, new_job_id
from nvflare.apis.job_def_manager_spec import JobDefManagerSpec
from nvflare.apis.utils.job_utils import get_event_job_id

from fedpeft.flare.internals import declare_lost, participants
from fedpeft.training.server.continuation import ATTEMPTS, RunState, RunStates
from fedpeft.training.server.run_folder import FINISHED

# The record (meta) of a job names the run's next job under this key.
CONTINUED_BY = "fedpeft_continued_by"
KEPT = tuple(
    key.value
    for key in (
        JobMetaKey.JOB_NAME,
        JobMetaKey.JOB_FOLDER_NAME,
        JobMetaKey.DEPLOY_MAP,
        JobMetaKey.RESOURCE_SPEC,
        JobMetaKey.MIN_CLIENTS,
        JobMetaKey.MANDATORY_CLIENTS,
        JobMetaKey.DATA_STORAGE_FORMAT,
        JobMetaKey.STUDY,
        JobMetaKey.SCOPE,
        JobMetaKey.CUSTOM_PROPS,
        JobMetaKey.JOB_LAUNCHER_SPEC,
        JobMetaKey.SUBMITTER_NAME,
        JobMetaKey.SUBMITTER_ORG,
        JobMetaKey.SUBMITTER_ROLE,
    )
)
ACTIVE = [RunStatus.SUBMITTED, RunStatus.APPROVED, RunStatus.DISPATCHED, RunStatus.RUNNING]


class Continuation(FLComponent):
    """Continues runs in further jobs.

    Args:
        wait_seconds: how long a next job waits for the sites of the last round. It waits for the job's
            ``min_clients`` without limit.
    """

    def __init__(self, wait_seconds: float = 300.0) -> None:
        super().__init__()
        self.wait_seconds = wait_seconds
        self._lock = RLock()
        # Scheduled job -> tokens of its clients. A restarted client has a new token.
        self._tokens: dict[str, set[str]] = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Handle events of the server's main process; a job's own process fires none of these."""
        handlers = {
            EventType.SYSTEM_START: self._started,
            EventType.BEFORE_CHECK_CLIENT_RESOURCES: self._scheduling,
            EventType.CLIENT_REGISTER_PROCESSED: self._seen,
            EventType.CLIENT_HEARTBEAT_PROCESSED: self._seen,
            EventType.JOB_ABORTED: self._ended,
            EventType.JOB_COMPLETED: self._ended,
        }
        if event_type in handlers:
            with self._lock:
                handlers[event_type](fl_ctx)

    def _started(self, fl_ctx: FLContext) -> None:
        """Continue the runs whose jobs were running when the server was killed."""
        jobs, states = _jobs(fl_ctx), self._states(fl_ctx)
        states.forget_old(unless={job.job_id for job in jobs.get_jobs_by_status(ACTIVE, fl_ctx)})
        for job in jobs.get_jobs_by_status([RunStatus.DISPATCHED, RunStatus.RUNNING], fl_ctx):
            state = states.of(job.job_id) or states.begin(job.job_id)
            failed = (state.status(job.job_id) or "").startswith("failed")
            if not failed:
                self._go_on(job, state, fl_ctx)
            status = RunStatus.FINISHED_EXECUTION_EXCEPTION if failed else RunStatus.FINISHED_ABNORMAL
            jobs.set_status(job.job_id, status, fl_ctx)
            self._archive(job, fl_ctx)

    def _archive(self, job: Job, fl_ctx: FLContext) -> None:
        """Store a job's folder as its result, as FLARE does when it sees a job end."""
        folder = Path(fl_ctx.get_engine().get_workspace().get_run_dir(job.job_id))
        if folder.is_dir():
            _jobs(fl_ctx).save_workspace(job.job_id, [str(folder)], fl_ctx)
            shutil.rmtree(folder)

    def _scheduling(self, fl_ctx: FLContext) -> None:
        """Delay a run's next job until the sites of the last round are connected; record who is when it starts."""
        job = _jobs(fl_ctx).get_job(fl_ctx.get_prop(FLContextKey.CURRENT_JOB_ID), fl_ctx)
        state = self._state(job, fl_ctx)
        invited = set(fl_ctx.get_prop(FLContextKey.JOB_PARTICIPANTS))
        clients = [client for client in _clients(fl_ctx) if client.name in invited]
        there = {client.name for client in clients}
        waited = time.time() - job.meta[JobMetaKey.SUBMIT_TIME.value]
        absent = ", ".join(sorted(state.sites - there))
        if absent and waited < self.wait_seconds:
            reason = f"the run's next job waits for {absent}, {self.wait_seconds:.0f} s at most"
            fl_ctx.set_prop(FLContextKey.JOB_BLOCK_REASON, reason, private=True, sticky=False)
            return
        state.starts(there)
        self._tokens[job.job_id] = {client.token for client in clients}

    def _seen(self, fl_ctx: FLContext) -> None:
        """Let a client that was not connected when a job started wait for the run's next job."""
        engine = fl_ctx.get_engine()
        for job_id, members in participants(engine).items():
            known, state = self._tokens.get(job_id), self._states(fl_ctx).of(job_id)
            if known is None or state is None:
                continue
            for client in (client for client in _clients(fl_ctx) if client.token not in known):
                known.add(client.token)
                state.await_site()
                self.log_info(fl_ctx, f"{client.name} enters the run of job {job_id} after this round")
                # A restarted site has forgotten the job, and FLARE does not tell the job.
                if client.name in {member.name for member in members.values()}:
                    declare_lost(engine, job_id, client.name, "its client was started anew")

    def _ended(self, fl_ctx: FLContext) -> None:
        """Continue a run that its job has not finished; forget a run that has finished or never began."""
        jobs, job_id = _jobs(fl_ctx), get_event_job_id(fl_ctx)
        self._tokens.pop(job_id, None)
        state, job = self._states(fl_ctx).of(job_id), jobs.get_job(job_id, fl_ctx)
        if state is None or job is None or state.jobs[-1]["job"] != job_id:
            return
        said = state.status(job_id)
        if said == FINISHED or said is None and len(state.jobs) == 1:
            state.remove()
        elif not _is_over(job, state, said or ""):
            self._go_on(job, state, fl_ctx)

    def _go_on(self, job: Job, state: RunState, fl_ctx: FLContext) -> None:
        """Submit the run's next job, unless a killed server has done so already or too many jobs got nowhere."""
        jobs, last = _jobs(fl_ctx), state.jobs[-1]["job"]
        if last != job.job_id and jobs.get_job(last, fl_ctx):
            return
        if state.stuck:
            self.log_error(fl_ctx, f"the run of job {job.job_id} ends: {ATTEMPTS} jobs finished no round")
            return
        following = new_job_id()
        state.append(following)
        meta = {key: job.meta[key] for key in KEPT if key in job.meta}
        meta |= {JobMetaKey.JOB_ID.value: following, JobMetaKey.CLONED_FROM.value: job.job_id}
        jobs.clone(job.job_id, meta, fl_ctx)
        jobs.update_meta(job.job_id, {CONTINUED_BY: following}, fl_ctx)
        self.log_info(
            fl_ctx, f"the run of job {job.job_id} goes on after {state.rounds_done} rounds in job {following}"
        )

    def _state(self, job: Job, fl_ctx: FLContext) -> RunState:
        """The run state of a job that is about to start."""
        states = self._states(fl_ctx)
        return states.of(job.job_id) or self._taken_up(job, fl_ctx) or states.begin(job.job_id)

    def _taken_up(self, job: Job, fl_ctx: FLContext) -> RunState | None:
        """The run state of the failed or aborted job that its submitter cloned as this one; None for other jobs."""
        jobs, claimed = _jobs(fl_ctx), job.meta.get(JobMetaKey.CLONED_FROM.value)
        state = self._states(fl_ctx).of(claimed)
        if state is None or state.jobs[-1]["job"] != claimed or claimed in self._tokens:
            return None
        source = jobs.get_job(claimed, fl_ctx)
        # Any submitted job can claim to be a clone.
        same = source and jobs.get_content(job.meta, fl_ctx) == jobs.get_content(source.meta, fl_ctx)
        if not same or _submitter(job) != _submitter(source):
            return None
        state.append(job.job_id)
        return state

    def _states(self, fl_ctx: FLContext) -> RunStates:
        return RunStates(Path(fl_ctx.get_engine().get_workspace().get_root_dir()))


def _jobs(fl_ctx: FLContext) -> JobDefManagerSpec:
    return fl_ctx.get_engine().get_component(SystemComponents.JOB_MANAGER)


def _clients(fl_ctx: FLContext) -> list[Client]:
    return fl_ctx.get_engine().get_clients()


def _is_over(job: Job, state: RunState, said: str) -> bool:
    """Whether the next job would end for the same reason as this one."""
    idle = state.rounds_done == state.jobs[-1]["from_round"]
    aborted = job.meta[JobMetaKey.STATUS.value] == RunStatus.FINISHED_ABORTED.value
    # A job that stops without a fault and without a finished round, with enough sites, could not be built at a site.
    return aborted or said.startswith("failed") or idle and said.startswith("stopped")


def _submitter(job: Job) -> tuple[Any, ...]:
    return tuple(job.meta.get(key.value) for key in (JobMetaKey.SUBMITTER_NAME, JobMetaKey.SUBMITTER_ORG))

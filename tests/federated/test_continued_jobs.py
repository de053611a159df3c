"""Which jobs the server continues, on FLARE's own job store: what is cloned, what never is, and who is waited for."""

import time
from types import SimpleNamespace

import pytest
from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import RunStatus
from nvflare.apis.server_engine_spec import ServerEngineSpec
from nvflare.app_common.storages.filesystem_storage import FilesystemStorage

from fedpeft.common.files import write_json
from fedpeft.deploy.continuation import CONTINUED_BY, Continuation
from fedpeft.deploy.storage import KitJobs
from fedpeft.training.server.continuation import ATTEMPTS, RunStates

A = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
META = {
    "name": "job",
    "job_folder_name": "job",
    "deploy_map": {"app": ["@ALL"]},
    "resource_spec": {},
    "min_clients": 2,
    "submitter_name": "lead@example.org",
    "submitter_org": "hq",
    "submitter_role": "lead",
}


class Server:
    """What the component sees of FLARE's server: real job store, clients and processes of this test's making."""

    def __init__(self, root):
        self.root, self.clients, self.run_processes, self.told = root, [], {}, []
        self.runner = SimpleNamespace(resolve_client_outcome=lambda *outcome: self.told.append(outcome))
        parts = {
            "job_manager": KitJobs(str(root / "jobs-storage")),
            "job_store": FilesystemStorage(str(root)),
            "job_runner": self.runner,
        }
        spec = {name: lambda *_: None for name in ServerEngineSpec.__abstractmethods__}
        self.engine = type(
            "Engine",
            (ServerEngineSpec,),
            spec
            | {
                "get_component": lambda _, name: parts[name],
                "get_clients": lambda _: self.clients,
                "get_workspace": lambda _: SimpleNamespace(
                    get_root_dir=lambda: str(root), get_run_dir=lambda job: str(root / job)
                ),
                "run_processes": self.run_processes,
                "notify_dead_job": lambda _, job, name, reason: self.told.append((job, name, reason)),
            },
        )()
        self.jobs, self.component, self.states = parts["job_manager"], Continuation(), RunStates(root)

    def fire(self, event, **values):
        context = FLContext()
        context.set_prop("__engine__", self.engine)
        for key, value in values.items():
            context.set_prop(key, value)
        self.component.handle_event(event, context)
        return context

    def submit(self, job, content=b"signed", **meta):
        self.jobs.create(META | {"job_id": job} | meta, content, self.context)

    @property
    def context(self):
        context = FLContext()
        context.set_prop("__engine__", self.engine)
        return context

    def schedule(self, job):
        names = ["server", *(client.name for client in self.clients)]
        context = self.fire(
            EventType.BEFORE_CHECK_CLIENT_RESOURCES,
            **{FLContextKey.CURRENT_JOB_ID: job, FLContextKey.JOB_PARTICIPANTS: names},
        )
        return context.get_prop(FLContextKey.JOB_BLOCK_REASON)

    def end(self, job, status):
        self.jobs.set_status(job, status, self.context)
        self.fire(EventType.JOB_COMPLETED, **{FLContextKey.EVENT_DATA: {"job_id": job}})

    def meta(self, job):
        return self.jobs.get_job(job, self.context).meta

    def following(self, job):
        return self.meta(job).get(CONTINUED_BY)


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    made.clients = [Client("hospital-1", "token-1"), Client("hospital-2", "token-2")]
    made.submit(A)
    return made


def finished_round(state, number, *sites):
    (state.folder / f"round-{number:05d}").mkdir()
    records = state.folder / f"round-{number:05d}" / "rounds.jsonl"
    write_json(records, 0)
    records.write_text(f'{{"sites": {{{", ".join(f"{chr(34)}{site}{chr(34)}: 1" for site in sites)}}}}}\n')


@pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.DISPATCHED])
def test_a_job_that_ran_when_the_server_was_killed_goes_on_with_what_was_signed(server, status):
    server.schedule(A)
    server.jobs.set_status(A, status, server.context)
    write_json(server.root / A / "app_server" / "run" / "run.json", {})
    server.fire(EventType.SYSTEM_START)
    following = server.following(A)
    assert "workspace" in server.jobs.list_components(A, server.context) and not (server.root / A).exists()
    found = server.meta(following)
    assert found["status"] == "SUBMITTED" and found["cloned_from"] == A
    assert {key: found[key] for key in META} == META
    assert server.jobs.get_content(found, server.context) == b"signed"
    assert server.meta(A)["status"] == "FINISHED:ABNORMAL"
    assert server.states.of(A).run_key == server.states.of(following).run_key
    server.fire(EventType.SYSTEM_START)
    assert len(server.jobs.get_all_jobs(server.context)) == 2, "a second start continues nothing twice"


@pytest.mark.parametrize(
    ("said", "status", "goes_on"),
    [
        ("goes on in another job after 2 of 4 rounds", RunStatus.FINISHED_COMPLETED, True),
        ("running", RunStatus.FINISHED_ABNORMAL, True),
        ("running", RunStatus.FINISHED_EXECUTION_EXCEPTION, True),
        ("too few sites left, stopped after 0 of 4 rounds", RunStatus.FINISHED_EXECUTION_EXCEPTION, True),
        ("stopped after 0 of 4 rounds", RunStatus.FINISHED_EXECUTION_EXCEPTION, False),
        ("running", RunStatus.FINISHED_ABORTED, False),
        ("failed: too few results", RunStatus.FINISHED_EXECUTION_EXCEPTION, False),
        ("finished", RunStatus.FINISHED_COMPLETED, False),
        (None, RunStatus.FINISHED_EXECUTION_EXCEPTION, False),
    ],
)
def test_what_goes_on_and_what_is_over(server, said, status, goes_on):
    server.schedule(A)
    if said:
        server.states.of(A).note(A, said)
    server.end(A, status)
    assert bool(server.following(A)) == goes_on
    kept = said not in (None, "finished")
    assert (server.states.of(A) is not None) == kept, "what can be continued by hand is kept"


@pytest.mark.parametrize(
    ("status", "goes_on"),
    [
        (RunStatus.FINISHED_EXECUTION_EXCEPTION, True),
        (RunStatus.FINISHED_ABORTED, False),
    ],
)
def test_a_job_that_a_site_has_stopped_goes_on_if_it_had_finished_a_round(server, status, goes_on):
    server.schedule(A)
    finished_round(server.states.of(A), 1, "hospital-1", "hospital-2")
    server.states.of(A).note(A, "stopped after 1 of 4 rounds")
    server.end(A, status)
    assert bool(server.following(A)) == goes_on


def test_a_failed_job_is_not_continued_by_a_restart(server):
    server.schedule(A)
    server.states.of(A).note(A, "failed: too few results")
    server.jobs.set_status(A, RunStatus.RUNNING, server.context)
    server.fire(EventType.SYSTEM_START)
    assert server.meta(A)["status"] == "FINISHED:EXECUTION_EXCEPTION" and server.following(A) is None


def test_jobs_without_a_finished_round_come_to_an_end(server):
    job, started = A, 0
    while job:
        server.schedule(job)
        server.states.of(job).note(job, "running")
        server.end(job, RunStatus.FINISHED_ABNORMAL)
        job, started = server.following(job), started + 1
    assert started == ATTEMPTS == len(server.jobs.get_all_jobs(server.context))


def test_the_next_job_waits_for_the_sites_of_the_last_round_but_not_for_ever(server):
    server.clients.append(Client("hospital-3", "token-3"))
    server.schedule(A)
    state = server.states.of(A)
    finished_round(state, 1, "hospital-1", "hospital-2")
    state.note(A, "running")
    server.end(A, RunStatus.FINISHED_ABNORMAL)
    following = server.following(A)
    server.clients[:] = server.clients[:1]
    assert "waits for hospital-2, 300 s at most" in server.schedule(following)
    server.clients.append(Client("hospital-2", "token-9"))
    assert server.schedule(following) is None
    server.clients.pop()
    server.jobs.update_meta(following, {"submit_time": time.time() - 301}, server.context)
    assert server.schedule(following) is None


def run(server, job):
    participants = {client.token: client for client in server.clients}
    server.run_processes[job] = {RunProcessKey.PARTICIPANTS: participants}


@pytest.mark.parametrize("event", [EventType.CLIENT_REGISTER_PROCESSED, EventType.CLIENT_HEARTBEAT_PROCESSED])
def test_a_site_that_was_late_enters_with_the_next_job(server, event):
    server.schedule(A)
    run(server, A)
    server.fire(event)
    assert not server.states.of(A).awaited
    server.clients.append(Client("hospital-3", "token-3"))
    server.fire(event)
    assert server.states.of(A).awaited and not server.told


def test_a_site_started_anew_is_given_up_by_the_running_job_at_once(server):
    server.schedule(A)
    run(server, A)
    server.clients[1] = Client("hospital-2", "token-9")
    for _ in range(2):
        server.fire(EventType.CLIENT_REGISTER_PROCESSED)
    assert server.states.of(A).awaited
    assert server.told == [(A, "hospital-2", "its client was started anew"), (A, "hospital-2")]


B = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"


@pytest.mark.parametrize(
    ("change", "takes_up"),
    [
        ({}, True),
        ({"content": b"another job"}, False),
        ({"submitter_name": "other@example.org"}, False),
        ({"cloned_from": "no job"}, False),
    ],
)
def test_a_run_that_failed_goes_on_when_its_submitter_clones_the_job(server, change, takes_up):
    server.schedule(A)
    server.states.of(A).note(A, "failed: too few results")
    server.end(A, RunStatus.FINISHED_EXECUTION_EXCEPTION)
    server.submit(B, **{"cloned_from": A} | change)
    server.schedule(B)
    assert (server.states.of(B).run_key == server.states.of(A).run_key) == takes_up

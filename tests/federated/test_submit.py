"""Following a job and judging its end, with a server that says what it is told to; test_secure.py has a real one."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from nvflare.fuel.flare_api import api_spec

from fedpeft.cli.main import main
from fedpeft.config.run import make_run
from fedpeft.deploy import session as session_module
from fedpeft.deploy.continuation import CONTINUED_BY
from fedpeft.deploy.following import finished_run, follow, told
from fedpeft.deploy.session import AdminSession
from fedpeft.training.server.run_folder import RunFolder

HEAD = "2026-01-01 00:00:00,000 - RunFolderPersistor - INFO - [identity=fedpeft] - "
ROUND = HEAD + "fedpeft | round {}/4 | Dice at its start 0.500 (hospital-1 0.500) | loss 0.5 | up 1.0 kB | {} s"
RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=2, image_size=48)


class Server:
    """What a session asks; answers are given one after the other, the last one again and again."""

    def __init__(self, metas, logs=("",), stats=({},), statuses=()):
        self.answers = {"meta": list(metas), "log": list(logs), "stats": list(stats)}
        self.statuses, self.asked = dict(statuses), []

    def _next(self, name):
        left = self.answers[name]
        return left.pop(0) if len(left) > 1 else left[0]

    def meta(self, job):
        return self._next("meta")

    def log(self, job):
        self.asked.append("log")
        return self._next("log")

    def stats(self, job):
        self.asked.append("stats")
        return self._next("stats")

    def download(self, job, out):
        if job in self.statuses:
            folder = RunFolder(out / job / "workspace" / "app_server" / "run")
            folder.start(RUN, "federated", "a", "b")
            folder.finish(self.statuses[job])
        return out / job


def stats(round_, *sites, phase="train"):
    return {"phase": phase, "current_round": round_, "num_rounds": 4, "tasks": {"train": list(sites)} if sites else {}}


def test_the_lines_are_those_for_people_and_rounds_say_how_long_the_rest_takes():
    last = HEAD + "fedpeft | after 4 rounds"
    lines = told("\n".join((HEAD + "something", ROUND.format(1, "30.0"), ROUND.format(2, "10.0"), last)))
    assert [line.split(" | ")[0] for line in lines] == ["round 1/4", "round 2/4", "after 4 rounds"]
    assert lines[0].endswith("| 30.0 s | about 0:01:30 left") and lines[1].endswith("| about 0:00:40 left")


def test_what_a_round_could_not_do_does_not_hide_its_time():
    assert told(ROUND.format(3, "10.0") + " | silent: hospital-2")[0].endswith("hospital-2 | about 0:00:10 left")


def test_following_tells_each_thing_once_and_fetches_the_log_when_a_round_is_over():
    running = {"status": "RUNNING"}
    server = Server(
        [{"status": "SUBMITTED"}, running, running, running, {"status": "FINISHED:COMPLETED"}],
        logs=["", ROUND.format(1, "1.0"), f"{ROUND.format(1, '1.0')}\n{ROUND.format(2, '1.0')}"],
        stats=[stats(0, "hospital-2", "hospital-1"), stats(0, "hospital-1"), stats(1, phase="_finished_")],
    )
    lines = []
    assert follow(server, "a", lines.append, 0.0) == "a"
    assert [line.split(" | ")[0] for line in lines] == [
        "submitted",
        "running, round 1/4: train at hospital-1, hospital-2",
        "running, round 1/4: train at hospital-1",
        "round 1/4",
        "running",
        "round 2/4",
        "job a: FINISHED:COMPLETED",
    ]
    assert server.asked == ["stats", "log", "stats", "stats", "log", "log"]


def test_following_goes_on_in_the_runs_next_job():
    ended = {"status": "FINISHED:ABNORMAL"}
    server = Server([ended, ended | {CONTINUED_BY: "b"}, {"status": "FINISHED:COMPLETED"}])
    lines = []
    assert follow(server, "a", lines.append, 0.0) == "b"
    assert lines == ["job a: FINISHED:ABNORMAL", "the run goes on in job b", "job b: FINISHED:COMPLETED"]


@pytest.mark.parametrize("status", ["FINISHED:COMPLETED", "FINISHED:ABNORMAL"])
def test_a_run_has_finished_when_its_own_record_says_so(status, tmp_path):
    assert finished_run(Server([{"status": status}], statuses={"a": "finished"}), "a", tmp_path).run == RUN


@pytest.mark.parametrize(
    ("statuses", "meta", "reason"),
    [
        (
            {"a": "stopped after 1 of 2 rounds"},
            {"status": "FINISHED:COMPLETED"},
            "ended as 'stopped after 1 of 2 rounds'",
        ),
        ({"a": "running"}, {"status": "FINISHED:COMPLETED"}, "did not finish, it ended as 'running'"),
        (
            {},
            {"status": "FINISHED:FAILED_TO_RUN", "job_deploy_detail": ["server: OK", "hospital-1: BYOC not permitted"]},
            "did not begin its run: FINISHED:FAILED_TO_RUN; hospital-1: BYOC not permitted; nobody is there",
        ),
    ],
)
def test_any_other_end_is_an_error_that_names_it(statuses, meta, reason, tmp_path):
    log = "2026-01-01 - JobRunner - ERROR - nobody is there\n"
    with pytest.raises(RuntimeError, match=reason):
        finished_run(Server([meta], logs=[log], statuses=statuses), "a", tmp_path)


class Api:
    """FLARE's session: raises or answers what is left, one after the other."""

    left: list = []
    closed = 0

    def get_job_meta(self, job):
        found = self.left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    submit_job = get_job_meta

    def show_stats(self, job, target):
        return self.get_job_meta(job)

    def close(self):
        Api.closed += 1


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """A kit whose server is Api."""
    (tmp_path / "startup").mkdir()
    admin = {"username": "lead@example.org", "host": "flare", "port": 8002}
    (tmp_path / "startup" / "fed_admin.json").write_text(json.dumps({"admin": admin}))
    monkeypatch.setattr(Api, "closed", 0)
    monkeypatch.setattr(session_module, "new_secure_session", lambda *_, **__: Api())
    monkeypatch.setattr(session_module.time, "sleep", lambda _: None)
    return tmp_path


def test_a_lost_server_is_asked_again_on_a_new_connection(kit, monkeypatch):
    lost = [api_spec.SessionClosed("gone"), api_spec.InternalError("busy")]
    monkeypatch.setattr(Api, "left", [*lost, {"status": "RUNNING"}])
    assert AdminSession(kit).meta("a") == {"status": "RUNNING"}
    assert Api.left == [] and Api.closed == 2


def test_patience_ends(kit, monkeypatch):
    monkeypatch.setattr(Api, "left", [api_spec.NoConnection("refused")])
    with pytest.raises(RuntimeError, match=r"flare:8002 does not answer lead@example.org: refused; see that it runs"):
        AdminSession(kit, patience=-1.0).meta("a")


@pytest.mark.parametrize("error", [api_spec.JobNotFound("no such job: a"), api_spec.AuthorizationError("not for you")])
def test_a_refusal_is_not_asked_for_again(kit, monkeypatch, error):
    monkeypatch.setattr(Api, "left", [error, {"status": "RUNNING"}])
    with pytest.raises(RuntimeError, match=f"flare:8002 refuses: {error}"):
        AdminSession(kit).meta("a")


def test_a_job_is_submitted_once_whatever_the_answer(kit, monkeypatch, tmp_path):
    monkeypatch.setattr(Api, "left", [api_spec.InternalError("no answer"), "an id"])
    (tmp_path / "job").mkdir()
    with pytest.raises(RuntimeError, match="no answer"):
        AdminSession(kit).submit(tmp_path / "job")
    assert Api.left == ["an id"]


def test_where_no_job_runs_there_are_no_numbers(kit, monkeypatch):
    controller = stats(0, "hospital-1")
    running = {"server": {"ServerRunner": {"status": "started"}, "AdapterRounds": controller}}
    monkeypatch.setattr(Api, "left", [api_spec.JobNotRunning("a"), running])
    session = AdminSession(kit)
    assert session.stats("a") == {} and session.stats("a") == controller


def test_only_a_job_can_be_submitted(kit, capsys):
    assert main(["job", "submit", "nothing", "--kit", str(kit)]) == 1
    reason = "nothing is no folder with a meta.json and no shipped job; shipped are flap_sam_phantom"
    assert reason in capsys.readouterr().err


def test_a_shipped_job_is_submitted_by_its_name(kit, monkeypatch):
    seen = {}

    def submit(self, folder):
        seen.update({file.name: json.loads(file.read_text()) for file in Path(folder).rglob("*.json")})
        return "an id"

    monkeypatch.setattr(Api, "submit_job", submit)
    with redirect_stdout(StringIO()) as output:
        assert main(["job", "submit", "flap_sam_folder", "--kit", str(kit)]) == 0
    assert seen["meta.json"]["name"] == "flap_sam_folder" and len(seen) == 3
    assert f"follow it with: fedpeft job watch an id --kit {kit}" in output.getvalue()


def test_a_folder_that_is_no_kit_is_named(tmp_path, capsys):
    assert main(["job", "log", "a", "--kit", str(tmp_path)]) == 1
    assert f"{tmp_path} has no startup/fed_admin.json; give the kit of a person" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["submit", "watch", "log", "abort", "download"])
def test_help_has_an_example(name, capsys):
    with pytest.raises(SystemExit) as end:
        main(["job", name, "--help"])
    assert end.value.code == 0 and f"example:\n  fedpeft job {name} " in capsys.readouterr().out

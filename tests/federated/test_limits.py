"""What holds at a site whatever a job or the server says: the site's filter, the check of a job's files, no shell."""

import contextlib
import json
from types import SimpleNamespace

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import rsa
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants
from nvflare.fuel.sec.audit import AuditService
from nvflare.lighter.utils import sign_folders
from nvflare.private.admin_defs import Message
from nvflare.private.defs import SysCommandTopic, new_cell_message
from nvflare.private.fed.client.admin import FedAdminAgent
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors

from fedpeft.algebra.codec import CODECS, decode, nbytes, roundtrip
from fedpeft.config.jobs import JOBS
from fedpeft.config.run import make_run
from fedpeft.deploy.limits import JobFiles, NoShell, SiteLimit
from fedpeft.flare.filters import DecodePayload, EncodePayload, declared_bytes
from fedpeft.flare.job_run import JobRun
from fedpeft.flare.messages import META, REASON, is_ok, reason_of
from fedpeft.flare.rendering import write
from fedpeft.training.client.site_file import NAME

REPORT = {"cases": 3, "loss": 0.5, "seconds": 1.0, "dice": {"organ": 0.9}}


class Engine:
    def __init__(self, codec, local):
        self.job = JobRun(make_run("pdec_ft", "phantom", "sam_tiny", classes=2, codec=codec).to_dict())
        self.local = local
        self.events = []

    def fire_event(self, event_type, fl_ctx):
        self.events.append(event_type)

    def get_component(self, name):
        return self.job

    def get_workspace(self):
        return SimpleNamespace(get_site_config_dir=lambda: str(self.local))


def leaving(codec, local, permit):
    """The context of an answer on its way out of a site."""
    (local / NAME).write_text(json.dumps({"version": 1, "permit": permit}))
    fl_ctx = FLContext()
    fl_ctx.set_prop(ReservedKey.ENGINE, Engine(codec, local), private=True, sticky=False)
    fl_ctx.set_prop(ReservedKey.IDENTITY_NAME, "site-1", private=False, sticky=False)
    fl_ctx.set_prop(FLContextKey.FILTER_DIRECTION, FilterKey.OUT, private=True, sticky=False)
    return fl_ctx


def answer(data, meta=REPORT, kind=DataKind.WEIGHT_DIFF):
    shareable = DXO(kind, data=data, meta={META: dict(meta)}).to_shareable()
    shareable.set_header(AppConstants.CURRENT_ROUND, 0)
    return shareable


def update(fl_ctx):
    return {key: torch.randn(shape) for key, shape in fl_ctx.get_engine().job.payload(0).items()}


@pytest.mark.parametrize("codec", CODECS)
def test_the_site_encodes_itself_and_the_jobs_filters_change_nothing(codec, tmp_path):
    fl_ctx = leaving(codec, tmp_path, {})
    tensors = update(fl_ctx)
    left = SiteLimit().process(answer(tensors), fl_ctx)
    sent = left["DXO"]["data"]
    job = fl_ctx.get_engine().job
    assert nbytes(sent) == declared_bytes(job.payload(0), codec)
    again = EncodePayload().process(answer(sent), fl_ctx)["DXO"]["data"]
    assert all(torch.equal(again[key], value) and again[key].dtype == value.dtype for key, value in sent.items())
    decoded = decode(sent, job.payload(0), codec)
    assert all(torch.equal(decoded[key], value) for key, value in roundtrip(tensors, codec).items())
    # The one filter of the allow-list that would make more bytes of it.
    assert not is_ok(DecodePayload().process(left, fl_ctx))


def test_nothing_stands_beside_what_is_declared(tmp_path):
    fl_ctx = leaving("bfloat16", tmp_path, {})
    full = answer(update(fl_ctx), REPORT | {"patient": "Jane"})
    full["image"] = torch.zeros(9)
    full.set_header("patient", "Jane")
    left = SiteLimit().process(full, fl_ctx)
    assert is_ok(left) and "Jane" not in repr(left) and "image" not in left
    assert left["DXO"]["meta"][META] == REPORT and left.get_header(AppConstants.CURRENT_ROUND) == 0


def test_a_validations_numbers_leave_and_nothing_else(tmp_path):
    fl_ctx = leaving("bfloat16", tmp_path, {"max_upload_bytes": 0})
    left = SiteLimit().process(answer({"cases": 3, "dice": {"organ": 0.5}, "who": "Jane"}, {}, "METRICS"), fl_ctx)
    assert left["DXO"]["data"] == {"cases": 3, "dice": {"organ": 0.5}}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: answer(data | {"x": torch.zeros(2)}), "'x' is extra"),
        (lambda data: answer({key: value.int() for key, value in data.items()}), "expected a float tensor"),
        (lambda data: answer({}), "empty"),
        (lambda data: answer(data, kind=DataKind.COLLECTION), "'COLLECTION'"),
        (lambda data: Shareable({"weights": data}), "no DXO"),
    ],
)
def test_what_is_no_declared_payload_stays(change, word, tmp_path):
    fl_ctx = leaving("bfloat16", tmp_path, {})
    decoded = SiteLimit().process(change(update(fl_ctx)), fl_ctx)
    assert decoded.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR and word in reason_of(decoded)
    assert "DXO" not in decoded and "weights" not in decoded


@pytest.mark.parametrize(
    ("permit", "word"),
    [({"methods": []}, "not permit method 'pdec_ft'"), ({"max_upload_bytes": 1000}, "what the site permits, 1,000")],
)
def test_the_site_files_permit_holds(permit, word, tmp_path):
    fl_ctx = leaving("bfloat16", tmp_path, permit)
    decoded = SiteLimit().process(answer(update(fl_ctx)), fl_ctx)
    assert word in reason_of(decoded) and "DXO" not in decoded


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_text("{")])
def test_without_a_site_file_nothing_leaves_not_even_its_path(spoil, tmp_path):
    fl_ctx = leaving("bfloat16", tmp_path, {})
    spoil(tmp_path / NAME)
    decoded = SiteLimit().process(answer(update(fl_ctx)), fl_ctx)
    assert not is_ok(decoded) and "missing or faulty" in reason_of(decoded) and str(tmp_path) not in repr(decoded)
    assert not fl_ctx.get_engine().events, "FLARE answers a server that asks for the errors among a job's events"


def test_the_audit_log_says_how_much_left(tmp_path, monkeypatch):
    monkeypatch.setattr(AuditService, "the_auditor", None)
    AuditService.initialize(str(tmp_path / "audit.log"))
    fl_ctx = leaving("bfloat16", tmp_path, {})
    tensors = update(fl_ctx)
    SiteLimit().process(answer(tensors), fl_ctx)
    SiteLimit().process(answer({"x": torch.zeros(2)}), fl_ctx)
    AuditService.close()
    (line,) = [line for line in (tmp_path / "audit.log").read_text().splitlines() if "leaves" in line]
    assert line.endswith(f"leaves the site: {2 * sum(map(torch.numel, tensors.values()))} bytes of tensors, round 0")


def test_of_a_refusal_only_its_reason_leaves(tmp_path):
    given = make_reply(ReturnCode.BAD_TASK_DATA)
    given.set_header(REASON, "another\nmodel")
    given["log"] = "Jane"
    left = SiteLimit().process(given, leaving("bfloat16", tmp_path, {}))
    assert left.get_return_code() == ReturnCode.BAD_TASK_DATA and reason_of(left) == "another model"
    assert "Jane" not in repr(left)


@pytest.fixture
def app(tmp_path):
    """The app of a rendered job, signed as the console signs it."""
    folder = write(JOBS["flap_sam_phantom"], tmp_path) / "app"
    certificate = tmp_path / "lead.crt"
    certificate.write_text("a certificate")
    sign_folders(str(folder), rsa.generate_private_key(public_exponent=65537, key_size=2048), str(certificate))
    return folder


def test_a_rendered_and_signed_job_holds_what_it_may(app):
    assert len(list(app.rglob(".*"))) == 4
    assert JobFiles().validate(str(app)) == ("", {})


@pytest.mark.parametrize(
    "name",
    [
        "config/resources.json",
        "config/config_fed_client.conf",
        "config/more/config_fed_client.json",
        "config/x.py",
        "notes.txt",
        "src/__init__.py",
        "config_fed_client.json",
    ],
)
def test_a_job_with_another_file_is_refused(app, name):
    (app / name).parent.mkdir(parents=True, exist_ok=True)
    (app / name).write_text("{}")
    assert JobFiles().validate(str(app))[0].startswith(f"the job holds {name!r}, expected nothing but config/")


def test_a_link_is_no_file_of_a_job(app):
    file = app / "config" / "config_fed_client.json"
    file.rename(file.with_name("hidden"))
    file.symlink_to("/etc/hostname")
    (app / "config" / "hidden").unlink()
    assert "'config/config_fed_client.json'" in JobFiles().validate(str(app))[0]


def test_code_is_left_to_flares_own_right(app):
    """So that a job with code is answered with FLARE's words, "BYOC not permitted"."""
    (app / "custom" / "pkg").mkdir(parents=True)
    (app / "custom" / "pkg" / "x.py").touch()
    assert JobFiles().validate(str(app)) == ("", {})


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """FLARE's own agent for a server's commands, with what it serves at the time."""
    monkeypatch.setattr(ClientRequestProcessors, "request_processors", [*ClientRequestProcessors.request_processors])
    monkeypatch.setattr(AuditService, "the_auditor", None)
    AuditService.initialize(str(tmp_path / "audit.log"))
    engine = SimpleNamespace(new_context=lambda: contextlib.nullcontext(FLContext()))

    def ask(command):
        agent = FedAdminAgent("agent", SimpleNamespace(register_request_cb=lambda **_: None), engine)
        for processor in ClientRequestProcessors.request_processors:
            agent.register_processor(processor)
        return agent._dispatch_request(new_cell_message({}, Message(SysCommandTopic.SHELL, command))).payload.body

    yield ask
    AuditService.close()


def test_a_server_reads_no_file_of_a_site(agent, tmp_path):
    secret = tmp_path / "patients.txt"
    secret.write_text("Jane")
    assert agent(f"cat {secret}") == "Jane", "FLARE has closed this itself: NoShell can go"
    NoShell().handle_event(EventType.SYSTEM_BOOTSTRAP, FLContext())
    assert agent(f"cat {secret}") == "invalid_request"


def test_a_client_does_not_start_where_the_shell_is_not_found(agent):
    guard = NoShell()
    guard.handle_event(EventType.START_RUN, FLContext())
    guard.handle_event(EventType.SYSTEM_BOOTSTRAP, FLContext())
    with pytest.raises(UnsafeComponentError, match="could not be removed"):
        guard.handle_event(EventType.SYSTEM_BOOTSTRAP, FLContext())

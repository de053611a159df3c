"""What our parts accept of each other, without a federation: the engine here is a stand-in with one component."""

import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from fedpeft.algebra.codec import CODECS, encode, nbytes, roundtrip
from fedpeft.config.run import make_run
from fedpeft.flare.executor import Refused, SiteExecutor
from fedpeft.flare.filters import CheckMetrics, DecodePayload, EncodePayload, declared_bytes
from fedpeft.flare.job_run import JobRun
from fedpeft.flare.messages import META, REASON, is_ok, reason_of, refusal, site_report
from fedpeft.flare.round_line import round_line

RUN = make_run("pdec_ft", "phantom", "sam_tiny", classes=2, codec="bfloat16")
GOOD = {"cases": 3, "loss": 0.5, "seconds": 1.0, "dice": {"organ": 0.9}}


class Engine:
    def __init__(self, run):
        self.job = JobRun(run.to_dict())

    def fire_event(self, event_type, fl_ctx):
        """Logging an error is an event in FLARE."""

    def get_component(self, name):
        return self.job


@pytest.fixture
def context():
    return context_of(RUN)


def context_of(run):
    fl_ctx = FLContext()
    fl_ctx.set_prop(ReservedKey.ENGINE, Engine(run), private=True, sticky=False)
    fl_ctx.set_prop(ReservedKey.IDENTITY_NAME, "site-1", private=False, sticky=False)
    fl_ctx.set_prop(FLContextKey.FILTER_DIRECTION, FilterKey.IN, private=True, sticky=False)
    return fl_ctx


@pytest.fixture
def tensors(context):
    return {key: torch.randn(shape) for key, shape in context.get_engine().job.payload(0).items()}


def message(data, meta=GOOD, kind=DataKind.WEIGHT_DIFF):
    shareable = DXO(kind, data=data, meta={META: dict(meta)}).to_shareable()
    shareable.set_header(AppConstants.CURRENT_ROUND, 0)
    return shareable


@pytest.mark.parametrize("codec", CODECS)
def test_there_and_back_rounds_to_the_codec_and_nothing_else(codec, tensors):
    context = context_of(RUN.with_(codec=codec))
    # The order of a sender's dictionary means nothing.
    sent = EncodePayload().process(message(dict(reversed(tensors.items()))), context)
    assert nbytes(sent["DXO"]["data"]) == declared_bytes(context.get_engine().job.payload(0), codec)
    got = DecodePayload().process(sent, context)
    assert is_ok(got)
    assert got["DXO"]["data"].keys() == tensors.keys()
    assert all(torch.equal(got["DXO"]["data"][key], value) for key, value in roundtrip(tensors, codec).items())
    assert got["DXO"]["meta"][META] == GOOD


def test_only_the_declared_report_leaves(context, tensors):
    sent = EncodePayload().process(message(tensors, GOOD | {"patient": "Jane", "affine": [1, 2]}), context)
    assert sent["DXO"]["meta"][META] == GOOD


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: {}, "empty"),
        (lambda data: data | {"note": "patient 12"}, "'note'"),
        (lambda data: data | {"x": torch.zeros(2)}, "'x' is extra"),
        (lambda data: data | {next(iter(data)): None}, "expected a tensor"),
        (lambda data: data | {next(iter(data)): torch.zeros(3, 64, dtype=torch.int8)}, "int8"),
        (lambda data: {key: value.double() for key, value in data.items()}, "encoded bytes, expected"),
        (lambda data: {key: value.float() for key, value in data.items()}, "encoded bytes, expected"),
    ],
)
def test_anything_but_the_payload_is_refused(context, tensors, change, word):
    encoded = {key: value.bfloat16() for key, value in tensors.items()}
    answer = DecodePayload().process(message(change(encoded)), context)
    assert not is_ok(answer) and word in reason_of(answer)


def broken(**changes):
    """What int8 sends, with one buffer changed."""
    return lambda sent: sent | {name: change(sent[name].clone()) for name, change in changes.items()}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (broken(values=lambda x: x.float()), "'values' is torch.float32"),
        (broken(values=lambda x: torch.cat([x, x])), "8 bits travel as"),
        (broken(values=lambda x: x[:-1]), "'values' is torch.int8"),
        (broken(values=lambda x: x.to(torch.uint8)), "'values' is torch.uint8"),
        (broken(scales=lambda x: x.half()), "'scales' is torch.float16"),
        (broken(scales=lambda x: x.fill_(torch.nan)), "negative or not finite"),
        (broken(scales=lambda x: x.fill_(torch.inf)), "negative or not finite"),
        (broken(scales=lambda x: -x), "negative or not finite"),
        (broken(scales=lambda x: x.fill_(3e38)), "is not finite"),
        (broken(scales=lambda x: None), "expected a tensor"),
        (lambda sent: sent | {"note": torch.zeros(1)}, "'note'"),
        (lambda sent: {"values": sent["values"]}, "'scales' is missing"),
        (lambda sent: {}, "empty"),
    ],
)
def test_anything_but_the_payloads_buffers_is_refused(tensors, change, word):
    context = context_of(RUN.with_(codec="int8"))
    answer = DecodePayload().process(message(change(encode(tensors, "int8"))), context)
    assert not is_ok(answer) and word in reason_of(answer)


def test_a_payload_that_its_sender_did_not_encode_is_refused(tensors):
    answer = DecodePayload().process(message(tensors), context_of(RUN.with_(codec="int8")))
    assert not is_ok(answer) and "encoded bytes, expected" in reason_of(answer)


@pytest.mark.parametrize("filter_", [EncodePayload(), DecodePayload(), CheckMetrics()])
def test_what_is_no_dxo_is_refused(context, filter_):
    assert not is_ok(filter_.process(Shareable({"weights": [1, 2]}), context))


@pytest.mark.parametrize("kind", [DataKind.COLLECTION, DataKind.ANALYTIC])
def test_another_kind_is_refused(context, tensors, kind):
    assert not is_ok(EncodePayload().process(message(tensors, kind=kind), context))


@pytest.mark.parametrize(
    "change",
    [
        {"cases": -1},
        {"cases": True},
        {"cases": 1.5},
        {"cases": 10**400},
        {"cases": None},
        {"slices": 0},
        {"slices": True},
        {"slices": 30.0},
        {"slices": None},
        {"slices": 10**11},
        {"loss": float("nan")},
        {"loss": "low"},
        {"seconds": float("inf")},
        {"dice": [0.5]},
        {"dice": {"organ": 1.1}},
        {"dice": {"organ": float("nan")}},
        {"dice": {"a,b": 0.5}},
        {"dice": {"a\n": 0.5}},
        {"dice": {1: 0.5}},
        {"dice": {"a": 0.1, "b": 0.2, "c": 0.3}},
        {"dice": {"x" * 100: 0.5}},
        {"dice": {"a": torch.tensor(0.5)}},
    ],
)
def test_a_report_out_of_range_is_refused(change):
    with pytest.raises(ValueError, match="site-1: "):
        site_report(GOOD | change, RUN, "site-1")


@pytest.mark.parametrize("more", [{}, {"slices": 90}])
def test_a_report_may_have_the_number_of_slices(context, tensors, more):
    assert site_report(GOOD | more, RUN, "site-1") == GOOD | more
    got = DecodePayload().process(EncodePayload().process(message(tensors, GOOD | more), context), context)
    assert got["DXO"]["meta"][META] == GOOD | more


def test_a_validation_answers_numbers_alone(context):
    report = {"cases": 3, "dice": {"organ": 0.5}, "who": "Jane"}
    answer = CheckMetrics().process(message(report, {}, "METRICS"), context)
    assert answer["DXO"]["data"] == {"cases": 3, "dice": {"organ": 0.5}}
    assert not is_ok(CheckMetrics().process(message({"cases": 3, "dice": {"organ": "Jane"}}, {}, "METRICS"), context))


@pytest.mark.parametrize("reason", ["x" * 10**6, "two\nlines\x00", {"a": 1}, torch.zeros(3)])
def test_a_sites_reason_is_one_short_printable_line(reason):
    reply = refusal(ReturnCode.BAD_TASK_DATA, "")
    reply.set_header(REASON, reason)
    text = reason_of(reply)
    assert len(text) <= 500 and text.isprintable()


def test_another_initial_model_is_refused_with_both_digests():
    executor = SiteExecutor()
    executor._trainer = object()
    executor._fingerprints = {"checkpoint_sha256": "aaaa", "model_sha256": "bbbb"}
    with pytest.raises(Refused, match="model_sha256 at the server is cccc, at this site bbbb"):
        executor._prepared({"checkpoint_sha256": "aaaa", "model_sha256": "cccc"}, FLContext())


RECORD = {
    "sites": {"site-1": {"loss": 0.5, "bytes_up": 1500, "bytes_down": 2_000_000, "dice": {"organ": 0.25}}},
    "refused": {},
    "silent": ["site-2"],
    "seconds": 1.25,
}


@pytest.mark.parametrize(
    ("averaging", "fit"),
    [
        ({}, ""),
        ({"a": {"truncation_error": 0.0, "factor_mean_error": None}}, "fit 100.00% | "),
        (
            {
                "a": {"truncation_error": 0.01, "factor_mean_error": 0.03},
                "b": {"truncation_error": 0.02, "factor_mean_error": 0.025},
            },
            "fit 98.00% (mean of factors 97.00%) | ",
        ),
    ],
)
def test_a_rounds_line_shows_the_worst_fit_of_what_was_refactored(averaging, fit):
    assert round_line(2, RUN, RECORD | {"averaging": averaging}) == (
        f"fedpeft | round 3/10 | Dice at its start 0.250 (site-1 0.250) | loss 0.500 | {fit}up 1.5 kB, down 2.00 MB | "
        "1.2 s | silent: site-2"
    )

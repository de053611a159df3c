"""The content of fedpeft's messages inside FLARE's: header names, task data, refusals, a site's report."""

from math import inf
from typing import Any

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants
from torch import Tensor

from fedpeft.config.run import Run

META = "fedpeft"
REASON = "fedpeft_reason"
BYTES = "fedpeft_encoded_bytes"
MAX_REASON = 500
MAX_CASES = 10**7
MAX_SLICES = 10**10
MAX_LABEL = 64


def task_data(tensors: dict[str, Tensor], identity: dict[str, str], round_: int) -> Shareable:
    """The message that the server sends to the sites with a task.

    Args:
        tensors: the download of the round.
        identity: identifies the run and the initial model, see ``filters.IDENTITY``.
        round_: 0-based; for the validation after the last round, the number of rounds.
    """
    message = DXO(DataKind.WEIGHTS, data=tensors, meta={META: dict(identity)}).to_shareable()
    message.set_header(AppConstants.CURRENT_ROUND, round_)
    return message


def refusal(code: str, reason: str) -> Shareable:
    """A reply with the reason of a refusal, which may name keys, shapes and fingerprints, never files or patients."""
    reply = make_reply(code)
    reply.set_header(REASON, reason)
    return reply


def reason_of(shareable: Shareable) -> str:
    """The reason of a refusal as one printable line, since a site may write anything into it."""
    given = shareable.get_header(REASON)
    text = given if isinstance(given, str) and given else f"{shareable.get_return_code()}: see the site's log"
    return "".join(c if c.isprintable() else " " for c in text[:MAX_REASON])


def is_ok(shareable: Shareable) -> bool:
    """Whether a message is a result or task data, not a refusal."""
    return shareable.get_return_code(ReturnCode.OK) == ReturnCode.OK


def round_of(shareable: Shareable) -> int:
    """The 0-based round of a message.

    Raises:
        ValueError: the header is missing or not a number.
    """
    number = shareable.get_header(AppConstants.CURRENT_ROUND)
    if not isinstance(number, int):
        raise ValueError(f"the message's round is {number!r}, expected a number; it is not from a fedpeft job")
    return number


def sender(fl_ctx: FLContext) -> str:
    """The name of the party that sent a message."""
    peer = fl_ctx.get_peer_context()
    return peer.get_identity_name(default="unknown") if peer else "unknown"


def content(shareable: Shareable, kinds: tuple[str, ...]) -> DXO:
    """The one DXO of a message.

    Raises:
        ValueError: the message has no DXO, an empty one, or one of another kind than expected.
    """
    try:
        dxo = from_shareable(shareable)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the message holds no DXO ({error}), expected one of kind {' or '.join(kinds)}") from error
    if dxo.data_kind not in kinds:
        raise ValueError(f"the message holds a DXO of kind {dxo.data_kind!r}, expected {' or '.join(kinds)}")
    if not isinstance(dxo.data, dict) or not dxo.data:
        raise ValueError("the message's DXO is empty, expected the round's payload")
    return dxo


def site_report(report: dict[str, Any], run: Run, who: str) -> dict[str, Any]:
    """Check a site's report of its round; return the declared entries alone, as plain values.

    Args:
        report: "cases", "slices" (of the training cases), "loss" (mean over the steps), "seconds", and under the task's
            name of a class's score ("dice", "recall") class name -> mean validation score, empty without validation
            cases. "slices", "loss" and "seconds" may be absent.
        run: gives the task and the number of classes.
        who: the site's name, for the message.

    Raises:
        ValueError: a value is missing, of another type, out of range or not finite.
    """
    name = run.task.of_class
    cases, scores = report.get("cases"), report.get(name, {})
    if type(cases) is not int or not 0 <= cases <= MAX_CASES:
        raise ValueError(f"{who}: cases is a {type(cases).__name__} or out of range, expected 0 to {MAX_CASES}")
    slices = {"slices": report["slices"]} if "slices" in report else {}
    if any(type(value) is not int or not 1 <= value <= MAX_SLICES for value in slices.values()):
        raise ValueError(f"{who}: slices is no whole number from 1 to {MAX_SLICES}")
    if not isinstance(scores, dict) or len(scores) > run.data.classes:
        limit = f"a dict of at most {run.data.classes} classes"
        raise ValueError(f"{who}: {name} is a {type(scores).__name__}, expected {limit}")
    for label, value in scores.items():
        plain = isinstance(label, str) and len(label) <= MAX_LABEL and label.isprintable() and "," not in label
        if not plain or not _number(value) or not 0 <= value <= 1:
            raise ValueError(f"{who}: {name} holds an entry that is no class name with a number from 0 to 1")
    for key in ("loss", "seconds"):
        if key in report and (not _number(report[key]) or not 0 <= report[key] < inf):
            raise ValueError(f"{who}: {key} is no finite number of 0 or more")
    numbers: dict[str, Any] = {key: float(report[key]) for key in ("loss", "seconds") if key in report}
    return {"cases": cases, **slices, **numbers, name: {label: float(value) for label, value in scores.items()}}


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def meta_of(dxo: DXO) -> dict[str, Any]:
    """The part of a DXO's meta data that fedpeft wrote.

    Raises:
        ValueError: the DXO has no such part.
    """
    meta = dxo.get_meta_prop(META)
    if not isinstance(meta, dict):
        raise ValueError(f"the DXO's meta data has no {META!r}; its sender is no fedpeft of this version")
    return meta

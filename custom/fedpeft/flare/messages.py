"""What our parts say to each other inside FLARE's messages: header names, replies, who sent what."""

from typing import Any

from nvflare.apis.dxo import DXO, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants

META = "fedpeft"
REASON = "fedpeft_reason"
BYTES = "fedpeft_encoded_bytes"


def refusal(code: str, reason: str) -> Shareable:
    """A reply that says why; the reason names keys, shapes and digests, never values, files or patients."""
    reply = make_reply(code)
    reply.set_header(REASON, reason)
    return reply


def reason_of(shareable: Shareable) -> str:
    """Why a reply is no result."""
    return shareable.get_header(REASON) or f"{shareable.get_return_code()}: see the site's log"


def is_ok(shareable: Shareable) -> bool:
    """Whether a message is a result (or task data), not a refusal."""
    return shareable.get_return_code(ReturnCode.OK) == ReturnCode.OK


def round_of(shareable: Shareable) -> int:
    """The round a message belongs to.

    Raises:
        ValueError: the header is missing or no number.
    """
    number = shareable.get_header(AppConstants.CURRENT_ROUND)
    if not isinstance(number, int):
        raise ValueError(f"the message's round is {number!r}, expected a number; it is not from a fedpeft job")
    return number


def sender(fl_ctx: FLContext) -> str:
    """Name of the party at the other end."""
    peer = fl_ctx.get_peer_context()
    return peer.get_identity_name(default="unknown") if peer else "unknown"


def content(shareable: Shareable, kinds: tuple[str, ...]) -> DXO:
    """The one DXO of a message.

    Raises:
        ValueError: no DXO, an empty one, or one of another kind than expected.
    """
    try:
        dxo = from_shareable(shareable)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the message holds no DXO ({error}), expected one of kind {' or '.join(kinds)}") from error
    if dxo.data_kind not in kinds:
        raise ValueError(f"the message holds a DXO of kind {dxo.data_kind!r}, expected {' or '.join(kinds)}")
    if not isinstance(dxo.data, dict) or not dxo.data:
        raise ValueError("the message's DXO is empty, expected the round's parcel")
    return dxo


def meta_of(dxo: DXO) -> dict[str, Any]:
    """Our part of a DXO's meta data.

    Raises:
        ValueError: it is missing.
    """
    meta = dxo.get_meta_prop(META)
    if not isinstance(meta, dict):
        raise ValueError(f"the DXO's meta data has no {META!r}; its sender is no fedpeft of this version")
    return meta

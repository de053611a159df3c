"""Filters at both ends: only the declared payload leaves or enters a site or the server.

The sender's filter checks and encodes the payload; the receiver's checks the encoded size, decodes and checks the
payload. FLARE runs a site's own privacy filters before a job's filters, so a site checks privacy before it encodes.
"""

from typing import Any

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from torch import Tensor

from fedpeft.algebra.codec import decode, encode, encoded_bytes, is_encoded, nbytes
from fedpeft.flare.job_run import JobRun, job_run
from fedpeft.flare.messages import BYTES, META, content, is_ok, meta_of, refusal, round_of, sender, site_report
from fedpeft.models.payload import Payload, check, named

TENSORS = (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF)
# The only meta data beside the tensors on their way to the sites: it identifies the run and the initial model.
IDENTITY = ("run_key", "run_sha256", "checkpoint_sha256", "model_sha256")


def declared_bytes(payload: Payload, codec: str) -> int:
    """Encoded size of a payload's values in bytes, without keys and headers."""
    return encoded_bytes(payload, codec)


def declared(dxo: DXO, round_: int, job: JobRun) -> Payload:
    """The declared payload of a message: a round's update, a site's own model, or the server's download of a round.

    Raises:
        ValueError: the run has no such round, or the message lacks fedpeft's meta data.
    """
    if dxo.data_kind == DataKind.WEIGHT_DIFF:
        return job.payload(round_)
    return job.whole if "cases" in meta_of(dxo) else job.download(round_)


class CheckedFilter(DXOFilter):
    """A filter that replaces a faulty message by a refusal, which names the sender and what was expected.

    FLARE's own DXOFilter passes a message without a DXO, or with an empty one; this filter refuses it.

    Args:
        kinds: kinds of DXO that may pass, after ``process_dxo``.
    """

    def __init__(self, kinds: tuple[str, ...]) -> None:
        super().__init__(supported_data_kinds=list(kinds), data_kinds_to_filter=None)
        self.kinds = kinds

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Filter a message, or answer with a refusal."""
        if not is_ok(shareable):
            return shareable
        try:
            content(shareable, self.kinds)
            return super().process(shareable, fl_ctx)
        except ValueError as fault:
            self.log_error(fl_ctx, f"refused: {fault}")
            arriving = fl_ctx.get_prop(FLContextKey.FILTER_DIRECTION) == FilterKey.IN
            code = ReturnCode.BAD_TASK_DATA if arriving else ReturnCode.TASK_RESULT_FILTER_ERROR
            return refusal(code, str(fault))


class EncodePayload(CheckedFilter):
    """The sender's filter for tensors: checks them, keeps only the declared meta data, encodes with the run's codec."""

    def __init__(self) -> None:
        super().__init__(TENSORS)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """A new DXO with the encoded payload.

        Raises:
            ValueError: the content is not the declared payload.
        """
        job, me = job_run(fl_ctx), fl_ctx.get_identity_name()
        payload, codec = declared(dxo, round_of(shareable), job), job.run.federation.codec
        # A site's own filter (SiteLimit) runs before a job's filters and has already encoded.
        tensors = decode(dxo.data, payload, codec) if is_encoded(dxo.data, codec) else dxo.data
        check(tensors, payload, me)
        encoded = DXO(dxo.data_kind, data=encode({key: tensors[key] for key in payload}, codec))
        encoded.set_meta_prop(META, _declared(meta_of(dxo), job, me))
        return encoded


class DecodePayload(CheckedFilter):
    """The receiver's filter for tensors: checks the encoded size, decodes to float32, checks the payload."""

    def __init__(self) -> None:
        super().__init__(TENSORS)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """A new DXO with the decoded payload.

        Raises:
            ValueError: the content is too large or not the declared payload, or the filter runs at the sender.
        """
        if fl_ctx.get_prop(FLContextKey.FILTER_DIRECTION) == FilterKey.OUT:
            raise ValueError("DecodePayload stands where tensors leave, expected EncodePayload; render the job again")
        job, who = job_run(fl_ctx), sender(fl_ctx)
        payload = declared(dxo, round_of(shareable), job)
        tensors = {key: value for key, value in dxo.data.items() if isinstance(value, Tensor)}
        size, limit = nbytes(tensors), declared_bytes(payload, job.run.federation.codec)
        for key, value in dxo.data.items():
            if key not in tensors:
                shape = payload.get(key, "no such key")
                raise ValueError(f"{who}: {named(key)} is a {type(value).__name__}, expected a tensor: {shape}")
        # Checked before decoding. If keys or shapes are wrong too, the later message about them explains more.
        if size > limit and _shapes(tensors) == payload:
            raise ValueError(f"{who}: {size:,} encoded bytes, expected {limit:,} for {job.run.federation.codec}")
        try:
            decoded = DXO(dxo.data_kind, data=decode(tensors, payload, job.run.federation.codec))
        except ValueError as fault:
            raise ValueError(f"{who}: {fault}") from fault
        check(decoded.data, payload, who)
        decoded.set_meta_prop(META, _declared(meta_of(dxo), job, who))
        shareable.set_header(BYTES, size)
        return decoded


class CheckMetrics(CheckedFilter):
    """The filter for validation answers at both ends: passes only the number of cases and a score per class."""

    def __init__(self) -> None:
        super().__init__((DataKind.METRICS,))

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """A new DXO with the declared numbers alone.

        Raises:
            ValueError: the content is not a validation's answer.
        """
        arriving = fl_ctx.get_prop(FLContextKey.FILTER_DIRECTION) == FilterKey.IN
        who = sender(fl_ctx) if arriving else fl_ctx.get_identity_name()
        return DXO(DataKind.METRICS, data=site_report(dxo.data, job_run(fl_ctx).run, who))


def _declared(meta: dict[str, Any], job: JobRun, who: str) -> dict[str, Any]:
    """The declared meta data: a site's report on the way up, the run's identity on the way down."""
    if "cases" in meta:
        return site_report(meta, job.run, who)
    return {key: str(meta[key]) for key in IDENTITY if key in meta}


def _shapes(tensors: dict[str, Tensor]) -> Payload:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}

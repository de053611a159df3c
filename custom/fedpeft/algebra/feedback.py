"""Error feedback: the quantisation error of a codec is added to what is sent next, at both ends.

Without it, a change below half a step of the codec is lost in every round; with it, the sum of what arrives stays
within one rounding of the exact sum (Seide et al., 1-bit SGD, Interspeech 2014; Karimireddy et al., Error feedback
fixes SignSGD, ICML 2019).
"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from fedpeft.algebra.average import Report, average_payload
from fedpeft.algebra.codec import roundtrip

Tensors = Mapping[str, Tensor]


def fed_back(pending: Tensors, residual: Tensors, codec: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what a site sends, as the server will decode it, and the residual that is sent with later rounds.

    Args:
        pending: path -> the update of the round, float32.
        residual: path -> quantisation error of earlier rounds, of the same shape; a path may be absent.
        codec: name of the codec.

    Returns:
        ``sent``, which another `roundtrip` does not change; and ``pending + residual - sent`` where that is not zero.

    Raises:
        ValueError: as `roundtrip` does.
    """
    total = {key: tensor + residual[key] if key in residual else tensor for key, tensor in pending.items()}
    sent = roundtrip(total, codec)
    left = {key: tensor - sent[key] for key, tensor in total.items()}
    return sent, {key: tensor for key, tensor in left.items() if tensor.any()}


def averaged(
    exact: Tensors,
    decoded: Tensors,
    updates: Sequence[Tensors],
    weights: Sequence[float],
    rule_of: Callable[[str], str],
) -> tuple[dict[str, Tensor], dict[str, Report]]:
    """Return the server's tensors after a round, and the reports of `average_payload`.

    The sites' updates refer to what they decoded and are added to exactly that; the quantisation error of the download
    is added to the average. That is exact for means. An averaged product is in the basis closest to the decoded
    factors, which is the basis of the quantisation error too, so products differ only in second order.

    Args:
        exact: path -> the server's own tensor, float32, for the paths of the updates at least.
        decoded: the same tensors as the sites decoded them.
        updates: for each site, in the order of the sites' names, path -> its trained tensor minus ``decoded``.
        weights: one number >= 0 for each site, sum 1.
        rule_of: path -> averaging rule.

    Raises:
        ValueError: as `average_payload` does.
    """
    base = {key: decoded[key] for key in updates[0]}
    mean, reports = average_payload(base, updates, weights, rule_of)
    return {key: tensor + (exact[key] - decoded[key]) for key, tensor in mean.items()}, reports

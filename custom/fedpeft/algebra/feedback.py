"""Error feedback: what a codec's rounding kept back is added to what is sent next, at both ends.

Without it a change below half a step of the codec is lost in every round anew; with it the sum of what arrives stays
within one rounding of the sum of what was meant (Seide et al., 1-bit SGD, Interspeech 2014; Karimireddy et al., Error
feedback fixes SignSGD, ICML 2019).
"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from fedpeft.algebra.average import Report, average_payload
from fedpeft.algebra.codec import roundtrip

Tensors = Mapping[str, Tensor]


def fed_back(pending: Tensors, residual: Tensors, codec: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what a site sends, as the server will decode it, and what it still owes.

    Args:
        due: path -> the round's difference, float32.
        owed: path -> what earlier rounds kept back, of the same shape; a path may be absent.
        codec: how tensors travel.

    Returns:
        ``sent``, for which another `roundtrip` changes nothing, and ``due + owed - sent`` where that is not all zero.

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
    differences: Sequence[Tensors],
    weights: Sequence[float],
    rule_of: Callable[[str], str],
) -> tuple[dict[str, Tensor], dict[str, Report]]:
    """Return the server's tensors after a round, and the reports of `average_payload`.

    The sites' differences refer to what they hold and are added to exactly that; what the download's rounding kept back
    is added to the average. That is exact for means. An averaged product comes in the basis closest to the factors
    held, to which what was kept back belongs as well, so products differ to second order alone.

    Args:
        exact: path -> the server's own tensor, float32.
        held: path -> the same as the sites decoded it, for the paths of the differences at least.
        differences: for each site, in the order of the sites' names, path -> its difference to ``held``.
        weights: one number >= 0 for each site, sum 1.
        rule_of: path -> averaging rule.

    Raises:
        ValueError: as `average_payload` does.
    """
    base = {key: decoded[key] for key in differences[0]}
    mean, reports = average_payload(base, differences, weights, rule_of)
    return {key: tensor + (exact[key] - decoded[key]) for key, tensor in mean.items()}, reports

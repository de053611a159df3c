"""Averaging rules: registry entries, which ``fedpeft.algebra.rules`` implements under the same names."""

from dataclasses import dataclass

from fedpeft.common.registry import Registry


@dataclass(frozen=True)
class AveragingRule:
    """An averaging rule's entry.

    Attributes:
        name: what methods' entries call it.
        note: what the server averages, for people.
        moves: whether the server can take another step than to the average itself. It needs sums and multiples of the
            changes of such tensors, in any basis: the rule's `Space`.
    """

    name: str
    note: str
    moves: bool = False


AVERAGING_RULES: Registry[AveragingRule] = Registry("averaging rule")


def register_averaging_rules(*entries: AveragingRule) -> None:
    """Add averaging rules; ValueError if there is one of that name."""
    for entry in entries:
        AVERAGING_RULES.register(entry.name, entry)


register_averaging_rules(
    AveragingRule("mean", "each tensor: the weighted mean", moves=True),
    AveragingRule("product", "low-rank products B A: their weighted sum, truncated to the rank", moves=True),
    AveragingRule("tensor_train", "FacT-TT: the updates V S U of all layers, with common bases"),
    AveragingRule("tucker", "FacT-TK: the same with C, P in place of S"),
)

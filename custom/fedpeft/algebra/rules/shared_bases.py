"""The average of updates that share their bases: FacT in its two forms, tensor train and Tucker."""

from collections.abc import Sequence
from dataclasses import asdict

from fedpeft.algebra.rules.registry import Leaves, Report, register_rule
from fedpeft.algebra.tucker import Tucker, average_tucker

# The leaves of FacT's two forms and the names of their dimensions; one name stands for one size.
TENSOR_TRAIN = {"V": ("out", "r"), "S": ("L", "r", "r"), "U": ("r", "in")}
TUCKER = {"V": ("out", "r"), "C": ("r", "r", "r'"), "P": ("r'", "L"), "U": ("r", "in")}


@register_rule("tensor_train")
def tensor_train_rule(base: Leaves, sites: Sequence[Leaves], weights: Sequence[float]) -> tuple[Leaves, Report]:
    """Average the slots' updates V S_l U of FacT-TT, see `tucker.average_tucker`.

    Raises:
        ValueError: if the leaves are not those of TENSOR_TRAIN, or from `average_tucker`.
    """
    _check_leaves(base, TENSOR_TRAIN)
    forms = [Tucker(x["S"], {1: x["V"], 2: x["U"].mT}) for x in [base, *sites]]
    found, report = average_tucker(forms[1:], weights, forms[0])
    return {"V": found.bases[1], "S": found.core, "U": found.bases[2].mT.contiguous()}, asdict(report)


@register_rule("tucker")
def tucker_rule(base: Leaves, sites: Sequence[Leaves], weights: Sequence[float]) -> tuple[Leaves, Report]:
    """Average the slots' updates V (sum_k C[:, :, k] P[k, l]) U of FacT-TK, see `tucker.average_tucker`.

    Raises:
        ValueError: if the leaves are not those of TUCKER, or from `average_tucker`.
    """
    _check_leaves(base, TUCKER)
    forms = [Tucker(x["C"].permute(2, 0, 1), {1: x["V"], 2: x["U"].mT, 0: x["P"].mT}) for x in [base, *sites]]
    found, report = average_tucker(forms[1:], weights, forms[0])
    turned = {"C": found.core.permute(1, 2, 0), "P": found.bases[0].mT, "U": found.bases[2].mT}
    return {"V": found.bases[1]} | {leaf: x.contiguous() for leaf, x in turned.items()}, asdict(report)


def _check_leaves(base: Leaves, expected: dict[str, tuple[str, ...]]) -> None:
    """Raise ValueError unless `base` has the expected leaves and one size for every name of a dimension."""
    sizes: dict[str, int] = {}
    if base.keys() != expected.keys() or not all(
        base[leaf].ndim == len(names)
        and all(sizes.setdefault(name, size) == size for name, size in zip(names, base[leaf].shape, strict=True))
        for leaf, names in expected.items()
    ):
        wanted = ", ".join(f"{leaf} ({', '.join(names)})" for leaf, names in expected.items())
        got = ", ".join(f"{leaf} {tuple(x.shape)}" for leaf, x in base.items())
        raise ValueError(f"an adapter with the leaves {wanted} expected, got {got}")

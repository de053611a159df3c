"""One averaging rule for every parameter that travels, and the one function that applies them.

Sites send differences to the model they received; products are made of factors, not of differences, so the base is
added back before anything is multiplied. A rule is a row of RULES: how a parameter path splits into a group and a leaf,
and a pure function that averages one group. A new rule is one more row; nothing here branches on a rule's name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import fsum, isfinite

import torch
from torch import Tensor

from fedpeft.algebra.finite import all_finite
from fedpeft.algebra.lowrank import Factors, average_products, check_weights
from fedpeft.algebra.tucker import Tucker, average_tucker
from fedpeft.common.parallel import parallel_map

Leaves = dict[str, Tensor]
Report = dict[str, float | None]

# The leaves of FacT's two kinds and the names of their dimensions; one name stands for one size.
TENSOR_TRAIN = {"V": ("out", "r"), "S": ("L", "r", "r"), "U": ("r", "in")}
TUCKER = {"V": ("out", "r"), "C": ("r", "r", "r'"), "P": ("r'", "L"), "U": ("r", "in")}


@dataclass(frozen=True)
class Rule:
    """How one kind of parameter is averaged.

    Attributes:
        split: parameter path -> (group, leaf); the tensors of a group are averaged together.
        average: (base leaves, the leaves of each site, weights) -> (averaged leaves, report). The sites' leaves come in
            float64; results have the keys, shapes and dtypes of the base. The report holds plain numbers, or nothing.
    """

    split: Callable[[str], tuple[str, str]]
    average: Callable[[Leaves, Sequence[Leaves], Sequence[float]], tuple[Leaves, Report]]


def normalised(weights: Sequence[float]) -> list[float]:
    """Return `weights` (finite, >= 0, not all zero: case counts, say) divided by their sum.

    Raises:
        ValueError: if there is no weight, or one is negative or not finite, or all are zero.
    """
    if not weights or not all(isfinite(w) and w >= 0 for w in weights) or fsum(weights) <= 0:
        raise ValueError(f"finite weights >= 0 that are not all zero expected, got {list(weights)}")
    total = fsum(weights)
    return [w / total for w in weights]


def weighted_mean(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return sum_k w_k x_k, summed in the given order in float64, in the shape and dtype of the first tensor.

    Raises:
        ValueError: if the shapes differ or `weights` are not one number >= 0 a tensor with sum 1.
    """
    check_weights(weights, len(tensors))
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, w in zip(tensors, weights, strict=True):
        if tensor.shape != total.shape:
            raise ValueError(f"tensors of shape {tuple(total.shape)} expected, got {tuple(tensor.shape)}")
        total += w * tensor.double()
    return total.to(tensors[0].dtype)


def mean_rule(base: Leaves, sites: Sequence[Leaves], weights: Sequence[float]) -> tuple[Leaves, Report]:
    """Average every leaf by itself; there is nothing to report, since this average is exact."""
    return {leaf: weighted_mean([site[leaf] for site in sites], weights).to(base[leaf].dtype) for leaf in base}, {}


def product_rule(base: Leaves, sites: Sequence[Leaves], weights: Sequence[float]) -> tuple[Leaves, Report]:
    """Average the products B A of the leaves "A" (r, in) and "B" (out, r), see `lowrank.average_products`.

    Raises:
        ValueError: if the leaves are not exactly "A" and "B", or from `average_products`.
    """
    if set(base) != {"A", "B"}:
        raise ValueError(f"a product is averaged from the leaves 'A' and 'B', got {sorted(base)}")
    factors = [Factors(site["B"], site["A"]) for site in sites]
    found, report = average_products(factors, weights, Factors(base["B"], base["A"]))
    return {"A": found.a, "B": found.b}, asdict(report)


def tensor_train_rule(base: Leaves, sites: Sequence[Leaves], weights: Sequence[float]) -> tuple[Leaves, Report]:
    """Average the slots' updates V S_l U of FacT-TT, see `tucker.average_tucker`.

    Raises:
        ValueError: if the leaves are not those of TENSOR_TRAIN, or from `average_tucker`.
    """
    _check_leaves(base, TENSOR_TRAIN)
    forms = [Tucker(x["S"], {1: x["V"], 2: x["U"].mT}) for x in [base, *sites]]
    found, report = average_tucker(forms[1:], weights, forms[0])
    return {"V": found.bases[1], "S": found.core, "U": found.bases[2].mT.contiguous()}, asdict(report)


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


def _alone(key: str) -> tuple[str, str]:
    """Split a path for a rule that looks at one tensor at a time."""
    return key, ""


def _siblings(key: str) -> tuple[str, str]:
    """Split `encoder.qkv.lora.q.A` into `encoder.qkv.lora.q` and `A`."""
    group, _, leaf = key.rpartition(".")
    return group, leaf


RULES: dict[str, Rule] = {
    "mean": Rule(_alone, mean_rule),
    "product": Rule(_siblings, product_rule),
    "tensor_train": Rule(_siblings, tensor_train_rule),
    "tucker": Rule(_siblings, tucker_rule),
}


def average_payload(
    base: Mapping[str, Tensor],
    differences: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
    rule_of: Callable[[str], str],
) -> tuple[dict[str, Tensor], dict[str, Report]]:
    """Return the averaged tensors (not differences) of a round, and the reports of the groups that have one.

    Site k's tensors are base + difference, added in float64, so that no digit of a small float32 difference is lost.

    Args:
        base: parameter path -> the tensor as the sites decoded it, floating point.
        differences: for each site, in the order of the sites' names, the same paths and shapes.
        weights: one number >= 0 for each site, sum 1 (see `normalised`).
        rule_of: parameter path -> a name in RULES.

    Returns:
        The averages under the keys of `base`, in its order, shapes and dtypes; and group -> report, the group of a
        rule other than "mean" being the path without its last component.

    Raises:
        ValueError: naming the first key that is missing, superfluous, of another shape, not finite or not floating
            point; for an unknown rule; for weights that do not fit; or from a rule, with the group's name in front.
    """
    check_weights(weights, len(differences))
    for k, difference in enumerate(differences):
        _check_keys(k, difference, base)
    groups = _grouped(base, rule_of)
    found = parallel_map(partial(_averaged, base, differences, weights), groups.items())
    averaged: dict[str, Tensor] = {}
    for keys, (leaves, _) in zip(groups.values(), found, strict=True):
        averaged |= {key: leaves[leaf] for leaf, key in keys.items()}
    reports = {group: report for (_, group), (_, report) in zip(groups, found, strict=True) if report}
    return {key: averaged[key] for key in base}, reports


def _averaged(
    base: Mapping[str, Tensor],
    differences: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
    item: tuple[tuple[str, str], dict[str, str]],
) -> tuple[Leaves, Report]:
    """Return what its rule makes of one item of `_grouped`."""
    (name, group), keys = item
    sites = [{leaf: base[key].double() + d[key].double() for leaf, key in keys.items()} for d in differences]
    try:
        return RULES[name].average({leaf: base[key] for leaf, key in keys.items()}, sites, weights)
    except ValueError as error:
        raise ValueError(f"{group}: {error}") from error


def _grouped(base: Mapping[str, Tensor], rule_of: Callable[[str], str]) -> dict[tuple[str, str], dict[str, str]]:
    """Return (rule, group) -> leaf -> key, in the order of `base`."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for key, tensor in base.items():
        if not (tensor.is_floating_point() and all_finite(tensor)):
            raise ValueError(f"{key}: the base must be floating point and finite, got {tensor.dtype} or NaN, infinity")
        name = rule_of(key)
        if name not in RULES:
            raise ValueError(f"{key}: unknown averaging rule {name!r}, known are {sorted(RULES)}")
        group, leaf = RULES[name].split(key)
        groups.setdefault((name, group), {})[leaf] = key
    return groups


def _check_keys(k: int, difference: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the difference of site `k` has the keys and shapes of `base`, all values finite."""
    for key in sorted(base.keys() ^ difference.keys()):
        raise ValueError(f"{key}: {'missing from' if key in base else 'not expected from'} site {k}")
    for key, tensor in difference.items():
        if tensor.shape != base[key].shape:
            raise ValueError(f"{key}: site {k} sent {tuple(tensor.shape)}, expected {tuple(base[key].shape)}")
        if not all_finite(tensor):
            raise ValueError(
                f"{key}: site {k} sent NaN or infinity: leave it out of this round or lower its learning rate"
            )

"""The average of a round: every parameter by its averaging rule (``fedpeft.algebra.rules``).

Sites send updates of the model that they received. Products are made of factors, not of updates, so the base is added
back before anything is multiplied.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import fsum, isfinite

from torch import Tensor

from fedpeft.algebra.finite import all_finite
from fedpeft.algebra.lowrank import check_weights
from fedpeft.algebra.rules.registry import RULES, Leaves, Report
from fedpeft.common.parallel import parallel_map


def normalised(weights: Sequence[float]) -> list[float]:
    """Return `weights` (finite, >= 0, not all zero: case counts, say) divided by their sum.

    Raises:
        ValueError: if there is no weight, or one is negative or not finite, or all are zero.
    """
    if not weights or not all(isfinite(w) and w >= 0 for w in weights) or fsum(weights) <= 0:
        raise ValueError(f"finite weights >= 0 that are not all zero expected, got {list(weights)}")
    total = fsum(weights)
    return [w / total for w in weights]


def average_payload(
    base: Mapping[str, Tensor],
    updates: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
    rule_of: Callable[[str], str],
) -> tuple[dict[str, Tensor], dict[str, Report]]:
    """Return the averaged tensors (not updates) of a round, and the reports of the groups that have one.

    Site k's tensors are base + update, added in float64, so that no digit of a small float32 update is lost.

    Args:
        base: parameter path -> the tensor as the sites decoded it, floating point.
        updates: for each site, in the order of the sites' names, the same paths and shapes.
        weights: one number >= 0 for each site, sum 1 (see `normalised`).
        rule_of: parameter path -> name of a rule.

    Returns:
        The averages under the keys of `base`, in its order, shapes and dtypes; and group -> report. The group of a rule
        other than "mean" is the path without its last component.

    Raises:
        ValueError: naming the first key that is missing, superfluous, of another shape, not finite or not floating
            point; for an unknown rule; for weights that do not fit; or from a rule, with the group's name in front.
    """
    check_weights(weights, len(updates))
    for k, update in enumerate(updates):
        _check_keys(k, update, base)
    groups = grouped(base, rule_of)
    found = parallel_map(partial(_averaged, base, updates, weights), groups.items())
    averaged: dict[str, Tensor] = {}
    for keys, (leaves, _) in zip(groups.values(), found, strict=True):
        averaged |= {key: leaves[leaf] for leaf, key in keys.items()}
    reports = {group: report for (_, group), (_, report) in zip(groups, found, strict=True) if report}
    return {key: averaged[key] for key in base}, reports


def _averaged(
    base: Mapping[str, Tensor],
    updates: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
    item: tuple[tuple[str, str], dict[str, str]],
) -> tuple[Leaves, Report]:
    """Return the average and the report of one item of `grouped`."""
    (name, group), keys = item
    sites = [{leaf: base[key].double() + update[key].double() for leaf, key in keys.items()} for update in updates]
    try:
        return RULES[name].average({leaf: base[key] for leaf, key in keys.items()}, sites, weights)
    except ValueError as error:
        raise ValueError(f"{group}: {error}") from error


def grouped(base: Mapping[str, Tensor], rule_of: Callable[[str], str]) -> dict[tuple[str, str], dict[str, str]]:
    """Return (rule, group) -> leaf -> key, in the order of `base`.

    Raises:
        ValueError: a tensor is not floating point or not finite, or its rule is unknown; the message names it.
    """
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


def _check_keys(k: int, update: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the update of site `k` has the keys and shapes of `base`, all values finite."""
    for key in sorted(base.keys() ^ update.keys()):
        raise ValueError(f"{key}: {'missing from' if key in base else 'not expected from'} site {k}")
    for key, tensor in update.items():
        if tensor.shape != base[key].shape:
            raise ValueError(f"{key}: site {k} sent {tuple(tensor.shape)}, expected {tuple(base[key].shape)}")
        if not all_finite(tensor):
            raise ValueError(
                f"{key}: site {k} sent NaN or infinity: leave it out of this round or lower its learning rate"
            )

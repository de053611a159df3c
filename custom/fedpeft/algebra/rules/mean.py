"""The weighted mean of each tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedpeft.algebra.entries import EntrySpace
from fedpeft.algebra.lowrank import check_weights
from fedpeft.algebra.rules.registry import Leaves, Report, alone, register_rule


def weighted_mean(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return sum_k w_k x_k, summed in the given order in float64, in the shape and dtype of the first tensor.

    Raises:
        ValueError: if the shapes differ or `weights` are not one number >= 0 per tensor with sum 1.
    """
    check_weights(weights, len(tensors))
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, w in zip(tensors, weights, strict=True):
        if tensor.shape != total.shape:
            raise ValueError(f"tensors of shape {tuple(total.shape)} expected, got {tuple(tensor.shape)}")
        total += w * tensor.double()
    return total.to(tensors[0].dtype)


@register_rule("mean", split=alone, space=EntrySpace())
def mean_rule(base: Leaves, sites: Sequence[Leaves], weights: Sequence[float]) -> tuple[Leaves, Report]:
    """Average each leaf; the average is exact, so there is nothing to report."""
    return {leaf: weighted_mean([site[leaf] for site in sites], weights).to(base[leaf].dtype) for leaf in base}, {}

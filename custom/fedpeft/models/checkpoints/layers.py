"""Fold layers that published files have and our models lack into layers that our models have."""

import re

import torch
from torch import Tensor


def join_projections(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join the projections of queries, keys and values into one layer ``qkv``, wherever all three are present."""
    joined = dict(tensors)
    for query in [key for key in tensors if ".attn.query." in key]:
        three = [query.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(key in tensors for key in three):
            joined[query.replace(".query.", ".qkv.")] = torch.cat([joined.pop(key) for key in three])
    return joined


def fold_layer_scale(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold in LayerScale: x + g (W h + b) = x + (g W) h + g b, with one g per output of W (Touvron et al. 2021)."""
    folded = dict(tensors)
    for gamma in [key for key in tensors if re.search(r"\.ls[12]\.gamma$", key)]:
        layer = gamma.replace(".ls1.gamma", ".attn.proj").replace(".ls2.gamma", ".mlp.lin2")
        weight, bias = (tensors.get(f"{layer}.{leaf}") for leaf in ("weight", "bias"))
        factor = tensors[gamma].double()
        # A factor that does not fit stays, and the reader refuses it by its name.
        if weight is not None and bias is not None and weight.shape[:1] == bias.shape == factor.shape:
            del folded[gamma]
            folded[f"{layer}.weight"] = (weight.double() * factor.unsqueeze(1)).float()
            folded[f"{layer}.bias"] = (bias.double() * factor).float()
    return folded

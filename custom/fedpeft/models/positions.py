"""Fit a checkpoint's positional embeddings to another image size, in float64 and rounded once."""

from math import isqrt

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def fit(key: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """Interpolate positional embeddings to the model's grid; return any other tensor unchanged.

    Args:
        key: the tensor's name in the model.
        tensor: SAM's absolute positions (1, h, w, dim), a ViT's (1, 1 + h * h, dim), relative ones (2 h - 1, dim), or
            anything else.
        shape: the tensor's shape in the model.
    """
    if tensor.shape == shape or tensor.ndim != len(shape) or tensor.shape[-1] != shape[-1]:
        return tensor
    if key.endswith("pos_embed") and tensor.ndim == 3:
        return _sequence(tensor, shape)
    if key.endswith("pos_embed"):
        grid = tensor.double().permute(0, 3, 1, 2)
        return interpolate(grid, size=shape[1:3], mode="bilinear").permute(0, 2, 3, 1).float()
    if ".rel_pos_" in key:
        line = tensor.double().T.unsqueeze(0)
        return interpolate(line, size=shape[0], mode="linear").squeeze(0).T.float()
    return tensor


def _sequence(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Keep the first position, that of the class token; fit the others if they are a square grid."""
    first, rest = tensor.split([1, tensor.shape[1] - 1], dim=1)
    before, after = isqrt(rest.shape[1]), isqrt(shape[1] - 1)
    if before**2 != rest.shape[1]:
        return tensor
    grid = rest.double().unflatten(1, (before, before)).permute(0, 3, 1, 2)
    fitted = interpolate(grid, size=(after, after), mode="bicubic").flatten(2).permute(0, 2, 1)
    return torch.cat([first, fitted.float()], dim=1)

"""Codecs that send each tensor under its own name, in another type of floating-point number."""

from math import prod

import torch
from torch import Tensor

from fedpeft.algebra.codecs.registry import Codec, Shapes, Tensors


class Cast(Codec):
    """Each tensor in one floating-point type.

    Args:
        dtype: type in which values travel.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def encode(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return the tensors in the codec's type; they share memory where nothing changes."""
        return _cast(tensors, self.dtype)

    def decode(self, tensors: Tensors, shapes: Shapes) -> dict[str, Tensor]:
        """Return the tensors in float32; the receiver checks their keys and shapes."""
        for key, tensor in tensors.items():
            if key in shapes and tensor.dtype != self.dtype:
                raise ValueError(f"{key}: got {tensor.dtype}, expected {self.dtype}, which is what the codec sends")
        return _cast(tensors, torch.float32)

    def size(self, shapes: Shapes) -> int:
        """Return the bytes of all values."""
        return self.dtype.itemsize * sum(map(prod, shapes.values()))


def _cast(tensors: Tensors, dtype: torch.dtype) -> dict[str, Tensor]:
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{key}: only floating-point tensors travel, got {tensor.dtype}")
    return {key: tensor.detach().to(dtype).contiguous() for key, tensor in tensors.items()}

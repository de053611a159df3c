"""How tensors are written on the wire: outside the parcel, after privacy, and undone before anything is checked.

A codec acts on whole dictionaries, so that one may add tensors of its own (scales, say). Both ends must agree on what
arrived: a difference refers to the decoded download, and `roundtrip` is what the sender knows the receiver to hold.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def _cast(tensors: Tensors, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors in `dtype`, detached and contiguous; they share memory where nothing changes."""
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{key}: only floating-point tensors travel, got {tensor.dtype}")
    return {key: tensor.detach().to(dtype).contiguous() for key, tensor in tensors.items()}


def _float32(tensors: Tensors) -> dict[str, Tensor]:
    """Keep float32 bit for bit; 4 bytes a number."""
    return _cast(tensors, torch.float32)


def _bfloat16(tensors: Tensors) -> dict[str, Tensor]:
    """Round to 8 significant bits: relative error at most 2^-8 for |x| >= 2^-126; 2 bytes a number."""
    return _cast(tensors, torch.bfloat16)


CODECS: dict[str, Callable[[Tensors], dict[str, Tensor]]] = {"float32": _float32, "bfloat16": _bfloat16}


def encode(tensors: Tensors, codec: str) -> dict[str, Tensor]:
    """Return `tensors` (floating point, any shape) as `codec` sends them.

    Raises:
        ValueError: if the codec is unknown or a tensor is not floating point.
    """
    if codec not in CODECS:
        raise ValueError(f"unknown codec {codec!r}, known are {sorted(CODECS)}")
    return CODECS[codec](tensors)


def decode(tensors: Tensors) -> dict[str, Tensor]:
    """Return what any codec has encoded as float32; the encoding is seen from the tensors themselves.

    Raises:
        ValueError: if a tensor's dtype is none that a codec sends.
    """
    for key, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"{key}: no codec sends {tensor.dtype}, expected float32 or bfloat16")
    return _cast(tensors, torch.float32)


def roundtrip(tensors: Tensors, codec: str) -> dict[str, Tensor]:
    """Return what the receiver holds after `encode` with `codec` and `decode`.

    Raises:
        ValueError: as `encode` does.
    """
    return decode(encode(tensors, codec))


def nbytes(tensors: Tensors) -> int:
    """Return the bytes of the values, without keys or headers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

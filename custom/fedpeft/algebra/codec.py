"""How tensors are written on the wire: outside the payload, after privacy, and undone before anything is checked.

A codec acts on whole payloads, whose keys and shapes both ends know, so that one may send buffers of its own. Both ends
must agree on what arrived: a difference refers to the decoded download, and `roundtrip` is what the sender knows the
receiver to hold. It acts on each tensor by itself and changes nothing the second time.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from fedpeft.algebra import blockwise
from fedpeft.algebra.blockwise import Shapes

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Codec:
    """A way to write tensors.

    Attributes:
        encode: path -> tensor, to name -> what travels.
        decode: what travels and the payload's shapes, to path -> tensor in float32.
        size: the payload's shapes, to the bytes of what travels.
        buffers: names of what travels, where that is not each tensor under its own.
    """

    encode: Callable[[Tensors], dict[str, Tensor]]
    decode: Callable[[Tensors, Shapes], dict[str, Tensor]]
    size: Callable[[Shapes], int]
    buffers: Collection[str] = ()


def _cast(tensors: Tensors, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors in `dtype`, detached and contiguous; they share memory where nothing changes."""
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{key}: only floating-point tensors travel, got {tensor.dtype}")
    return {key: tensor.detach().to(dtype).contiguous() for key, tensor in tensors.items()}


def _uncast(tensors: Tensors, shapes: Shapes, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors in float32; that keys and shapes are the payload's is for the receiver to check."""
    for key, tensor in tensors.items():
        if key in shapes and tensor.dtype != dtype:
            raise ValueError(f"{key}: got {tensor.dtype}, expected {dtype}, which is what the codec sends")
    return _cast(tensors, torch.float32)


def _of(dtype: torch.dtype) -> Codec:
    def size(shapes: Shapes) -> int:
        return dtype.itemsize * sum(map(prod, shapes.values()))

    return Codec(partial(_cast, dtype=dtype), partial(_uncast, dtype=dtype), size)


# float32 is kept bit for bit, 4 bytes a number. bfloat16 has 8 significant bits, a relative error of at most 2^-8 for
# |x| >= 2^-126, 2 bytes a number. int8 is blockwise, 1.016 bytes a number.
CODECS: dict[str, Codec] = {
    "float32": _of(torch.float32),
    "bfloat16": _of(torch.bfloat16),
    "int8": Codec(blockwise.encode, blockwise.decode, blockwise.size, blockwise.BUFFERS),
}


def _codec(name: str) -> Codec:
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}, known are {sorted(CODECS)}")
    return CODECS[name]


def encode(tensors: Tensors, codec: str) -> dict[str, Tensor]:
    """Return `tensors` (floating point, any shape) as `codec` sends them.

    Raises:
        ValueError: the codec is unknown, or a tensor is not what it can send.
    """
    return _codec(codec).encode(tensors)


def decode(tensors: Tensors, shapes: Shapes, codec: str) -> dict[str, Tensor]:
    """Return what `codec` has encoded as float32.

    Args:
        tensors: what arrived.
        shapes: keys and shapes of the payload, in the sender's order.
        codec: its name.

    Raises:
        ValueError: the codec is unknown or does not send such tensors. Keys and shapes of tensors that travel under
            their own names are left to the receiver's check.
    """
    return _codec(codec).decode(tensors, shapes)


def roundtrip(tensors: Tensors, codec: str) -> dict[str, Tensor]:
    """Return what the receiver holds after `encode` with `codec` and `decode`.

    Raises:
        ValueError: as `encode` does.
    """
    return decode(encode(tensors, codec), {key: tuple(tensor.shape) for key, tensor in tensors.items()}, codec)


def is_encoded(tensors: Tensors, codec: str) -> bool:
    """Whether these are the buffers in which `codec` sends a payload, and not the payload's own tensors.

    Raises:
        ValueError: the codec is unknown.
    """
    return tensors.keys() == set(_codec(codec).buffers)


def encoded_bytes(shapes: Shapes, codec: str) -> int:
    """Return the bytes of a payload's values as `codec` sends them, without names and headers.

    Raises:
        ValueError: the codec is unknown.
    """
    return _codec(codec).size(shapes)


def nbytes(tensors: Tensors) -> int:
    """Return the bytes of the values, without keys or headers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

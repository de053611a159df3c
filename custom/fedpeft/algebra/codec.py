"""Encode tensors for the wire and decode them: the sender's last step, after privacy, and the receiver's first.

Both ends must agree on what arrived: an update refers to the decoded download, and `roundtrip` gives the sender what
the receiver decodes. The codecs themselves are in ``fedpeft.algebra.codecs``.
"""

from torch import Tensor

from fedpeft.algebra.codecs.registry import CODECS, Shapes, Tensors


def encode(tensors: Tensors, codec: str) -> dict[str, Tensor]:
    """Return `tensors` (floating point, any shape) as `codec` sends them.

    Raises:
        ValueError: the codec is unknown, or a tensor is not what it can send.
    """
    return CODECS.find(codec).encode(tensors)


def decode(tensors: Tensors, shapes: Shapes, codec: str) -> dict[str, Tensor]:
    """Return, in float32, the tensors that `codec` has encoded.

    Args:
        tensors: what arrived.
        shapes: keys and shapes of the payload, in the sender's order.
        codec: its name.

    Raises:
        ValueError: the codec is unknown or does not send such tensors. The receiver checks keys and shapes of tensors
            that travel under their own names.
    """
    return CODECS.find(codec).decode(tensors, shapes)


def roundtrip(tensors: Tensors, codec: str) -> dict[str, Tensor]:
    """Return what the receiver has after `encode` and `decode` with `codec`.

    Raises:
        ValueError: as `encode` does.
    """
    return decode(encode(tensors, codec), {key: tuple(tensor.shape) for key, tensor in tensors.items()}, codec)


def is_encoded(tensors: Tensors, codec: str) -> bool:
    """Whether these are the buffers in which `codec` sends a payload, and not the payload's own tensors.

    Raises:
        ValueError: the codec is unknown.
    """
    return tensors.keys() == set(CODECS.find(codec).buffers)


def encoded_bytes(shapes: Shapes, codec: str) -> int:
    """Return the bytes of a payload's values as `codec` sends them, without names and headers.

    Raises:
        ValueError: the codec is unknown.
    """
    return CODECS.find(codec).size(shapes)


def nbytes(tensors: Tensors) -> int:
    """Return the bytes of the values, without keys or headers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

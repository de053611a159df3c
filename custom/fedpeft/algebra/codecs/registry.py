"""The registry of codecs. A new one is one module of this package that calls ``register_codec``."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from torch import Tensor

from fedpeft.common.registry import Registry

Tensors = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


class Codec(ABC):
    """An encoding of a payload, whose keys and shapes both ends know.

    It encodes each tensor independently, and ``decode`` after ``encode`` is idempotent.

    Attributes:
        buffers: names of the encoded tensors; empty if each tensor travels under its own name.
    """

    buffers: Collection[str] = ()

    @abstractmethod
    def encode(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return what travels, by name: detached, contiguous, on the CPU where it makes new tensors.

        Raises:
            ValueError: a tensor is not what the codec can send; the message names it.
        """

    @abstractmethod
    def decode(self, tensors: Tensors, shapes: Shapes) -> dict[str, Tensor]:
        """Return the payload's tensors in float32, by their paths.

        Args:
            tensors: what arrived.
            shapes: keys and shapes of the payload, in the sender's order.

        Raises:
            ValueError: the codec does not send such tensors.
        """

    @abstractmethod
    def size(self, shapes: Shapes) -> int:
        """Return the bytes of the values that travel for a payload of these shapes."""


CODECS: Registry[Codec] = Registry("codec", __package__)


def register_codec(name: str, codec: Codec) -> None:
    """Add a codec; a run can name it once ``fedpeft.config.codecs`` has an entry of the same name.

    Raises:
        ValueError: there is another one of that name.
    """
    CODECS.register(name, codec)

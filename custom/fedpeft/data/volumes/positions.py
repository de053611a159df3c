"""Where stacks of neighbouring slices lie in a volume, in training and in prediction."""

from abc import ABC, abstractmethod

import numpy as np


class StackEnds(ABC):
    """Where stacks begin and end.

    Positions are indices of slices; those below 0 or from the volume's depth on stand for the slice at that end.

    Attributes:
        whole: whether repeated slices stay in a training batch, which a network that mixes slices needs in any case.
    """

    whole: bool

    @abstractmethod
    def training(self, depth: int, stack: int, stride: int, offset: int) -> np.ndarray:
        """First positions of an epoch's stacks, ``stride`` apart, at least one; the offset is 0 to ``stride - 1``."""

    @abstractmethod
    def covering(self, depth: int, stack: int, stride: int) -> np.ndarray:
        """First positions of stacks, at most ``stride`` apart, that together hold every slice of the volume."""


class Inside(StackEnds):
    """Stacks lie inside the volume but for the random offset, so a slice at an end is in fewer of them."""

    whole = False

    def training(self, depth: int, stack: int, stride: int, offset: int) -> np.ndarray:
        """See `StackEnds.training`; with a stride of 1 there are ``depth - stack + 1``."""
        return np.arange(-offset, max(1 - offset, depth - stack + stride), stride)

    def covering(self, depth: int, stack: int, stride: int) -> np.ndarray:
        """See `StackEnds.covering`; a volume thinner than a stack is in its middle."""
        if depth < stack:
            return np.array([-((stack - depth) // 2)])
        return np.unique([*range(0, depth - stack, stride), depth - stack])


class Repeat(StackEnds):
    """A stack is centred on each ``stride``-th slice; with a stride of 1 there are ``depth``.

    FLAP-SAM and MA-SAM cut volumes in this way, with a stride of 1, in training and in evaluation.
    """

    whole = True

    def training(self, depth: int, stack: int, stride: int, offset: int) -> np.ndarray:
        """See `StackEnds.training`."""
        return np.arange(min(offset, depth - 1), depth, stride) - stack // 2

    def covering(self, depth: int, stack: int, stride: int) -> np.ndarray:
        """See `StackEnds.covering`; the last slice has a stack of its own."""
        return np.unique([*range(0, depth, stride), depth - 1]) - stack // 2


# The run's ``stack_ends`` -> where stacks lie.
ENDS: dict[str, StackEnds] = {"inside": Inside(), "repeat": Repeat()}


def positions(starts: np.ndarray | int, stack: int) -> np.ndarray:
    """Positions of the slices of stacks, (..., stack) for starts (...)."""
    return np.asarray(starts)[..., None] + np.arange(stack)

"""What tasks and the training loop share: the form of a batch and of a loss, and how work is stopped."""

from collections.abc import Callable

from torch import Tensor

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class Stopped(Exception):
    """Training was asked to stop; what it had computed is not to be used."""

"""The types that tasks and the training loop share: a batch, a loss, and the exception that stops work."""

from collections.abc import Callable

from torch import Tensor

# Images and labels, in the form that the task defines.
Batch = tuple[Tensor, Tensor]
# (output of the model, labels) -> scalar loss.
Loss = Callable[[Tensor, Tensor], Tensor]


class Stopped(Exception):
    """The work was asked to stop; its results so far are incomplete and must not be used."""

"""Options of a site for its own machine: the same computation, up to rounding, in less memory or time."""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedpeft.models.sam.parts import Block

_log = logging.getLogger(__name__)


def checkpoint_activations(model: nn.Module) -> None:
    """Recompute the activations of the encoder's blocks in the backward pass instead of keeping them.

    ``model`` is changed in place. A step then fits into the memory of smaller GPUs and computes about a third more. The
    second pass drops the same activations as the first.
    """
    for block in model.modules():
        if isinstance(block, Block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_forward(model: nn.Module) -> None:
    """Compile ``model`` with torch.compile, in place; if that fails, the model computes as before.

    The first step of every input shape takes minutes. A failure, such as a missing compiler, is logged as a warning.
    """
    model.forward = _Compiled(model.forward)


class _Compiled:
    """A function that is compiled at its first call."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._call = torch.compile(function)

    def __call__(self, images: Tensor) -> Tensor:
        try:
            return self._call(images)
        except RuntimeError as fault:
            _log.warning("torch.compile is not possible here, the model runs uncompiled: %s", str(fault).split("\n")[0])
            self._call = self._function
            return self._function(images)

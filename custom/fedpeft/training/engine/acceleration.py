"""What a site may choose for its own machine: the same computation in less memory or time, up to rounding."""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedpeft.models.sam.parts import Block

_log = logging.getLogger(__name__)


def checkpoint_activations(model: nn.Module) -> None:
    """Let the encoder's blocks keep nothing but their input for the backward pass, and compute the rest again there.

    It changes ``model`` in place. It is for GPUs whose memory does not hold a step otherwise; a step computes about a
    third more. Dropout is the same both times.
    """
    for block in model.modules():
        if isinstance(block, Block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_forward(model: nn.Module) -> None:
    """Have torch.compile make kernels for ``model``, in place; where it cannot, the model computes as before.

    The first step of every input shape takes minutes. A failure (no compiler, an unknown operation) is logged as a
    warning.
    """
    model.forward = _Compiled(model.forward)


class _Compiled:
    """A function, compiled at its first call."""

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

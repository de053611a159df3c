"""W x + b and the low-rank updates of some of its outputs in one function, which copies neither output nor gradients.

As separate operations, each update passes over the whole fused output several times: zeros for the parts without one, a
concatenation, an addition, and their copies in the backward pass. These passes take longer than the products.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class LowRankSum(torch.autograd.Function):
    """y = x W^T + b, with x A_s^T B_s^T added to the columns that belong to slot s."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, starts: tuple[int, ...], *factors: Tensor
    ) -> Tensor:
        """Return y, (..., outputs).

        Args:
            ctx: autograd's.
            x: (..., inputs).
            weight: W, (outputs, inputs).
            bias: b, (outputs,), or None.
            starts: first column of every slot.
            factors: the slots' A, each (rank, inputs), then their B, each (width, rank).
        """
        downs, ups = factors[: len(starts)], factors[len(starts) :]
        tokens = x.flatten(0, -2)
        y = linear(tokens, weight, bias)
        hidden = tokens @ torch.cat(downs).mT
        for start, part, up in zip(starts, _by_slot(hidden, downs), ups, strict=True):
            y[:, start : start + len(up)].addmm_(part, up.mT)
        ctx.save_for_backward(tokens, weight, hidden, *factors)
        ctx.starts = starts
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors that need one."""
        tokens, weight, hidden, *factors = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        downs, ups = factors[: len(ctx.starts)], factors[len(ctx.starts) :]
        of_y = gradient.flatten(0, -2)
        parts = [of_y[:, start : start + len(up)] for start, up in zip(ctx.starts, ups, strict=True)]
        of_hidden = torch.cat([part @ up for part, up in zip(parts, ups, strict=True)], dim=1)
        of_downs = (of_hidden.mT @ tokens).split([len(down) for down in downs])
        of_ups = [part.mT @ slot for part, slot in zip(parts, _by_slot(hidden, downs), strict=True)]
        of_x = None
        if needs_x:
            of_x = (of_y @ weight).addmm_(of_hidden, torch.cat(downs)).unflatten(0, gradient.shape[:-1])
        of_weight = of_y.mT @ tokens if needs_weight else None
        return of_x, of_weight, of_y.sum(0) if needs_bias else None, None, *of_downs, *of_ups


def _by_slot(hidden: Tensor, downs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The slots' columns of x A^T for all slots."""
    return hidden.split([len(down) for down in downs], dim=1)

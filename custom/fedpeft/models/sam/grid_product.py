"""SAM's attention over small grids as plain matrix products, one image at a time so that it stays in the cache.

Compared with the published form, it saves the copies of queries, keys and values, one addition of N x N numbers, and
two of the three N x N matrices per head that autograd would keep.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class GridProduct(torch.autograd.Function):
    """softmax(q k^T / sqrt(d) + q.R_h[y - y'] + q.R_w[x - x']) v, and its derivative."""

    @staticmethod
    def forward(ctx: Any, fused: Tensor, table: Tensor, grid: tuple[int, int], heads: int) -> Tensor:
        """Compute the attention.

        Args:
            ctx: autograd's.
            fused: queries, keys and values of h * w tokens, (B, N, 3 dim).
            table: relative positions from the last to the first, vertical ones before horizontal ones,
                (2 h - 1 + 2 w - 1, dim / heads).
            grid: (h, w).
            heads: attention heads.

        Returns:
            (B, N, dim).
        """
        batch, count, width = fused.shape
        out = fused.new_empty(batch, count, heads, width // 3 // heads)
        kept = any(ctx.needs_input_grad)
        probabilities = fused.new_empty(batch if kept else 1, heads, count, count)
        for index, one in enumerate(fused):
            q, k, v = _parts(one, heads)
            down, along = _places(q @ table.mT, grid)
            logits = torch.add(down.unsqueeze(-1), along.unsqueeze(-2)).view(heads, count, count)
            logits.baddbmm_(q, k.mT, alpha=q.shape[-1] ** -0.5)
            chances = probabilities[index if kept else 0]
            torch.softmax(logits, dim=-1, out=chances)
            torch.bmm(chances, v, out=out[index].transpose(0, 1))
        ctx.save_for_backward(fused, table, probabilities)
        ctx.grid, ctx.heads = grid, heads
        return out.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """Gradients of ``fused`` and of ``table``, the latter where it trains."""
        fused, table, probabilities = ctx.saved_tensors
        of_fused = torch.empty_like(fused)
        of_table = torch.zeros_like(table) if ctx.needs_input_grad[1] else None
        for index, chances in enumerate(probabilities):
            q, k, v = _parts(fused[index], ctx.heads)
            of_q, of_k, of_v = _parts(of_fused[index], ctx.heads)
            upper = gradient[index].unflatten(-1, (ctx.heads, -1)).transpose(0, 1)
            scale = q.shape[-1] ** -0.5
            torch.bmm(chances.mT, upper, out=of_v)
            of_logits = torch._softmax_backward_data(upper @ v.mT, chances, -1, chances.dtype)
            torch.baddbmm(of_k, of_logits.mT, q, beta=0, alpha=scale, out=of_k)
            of_places = _gathered(of_logits, ctx.grid, len(table))
            of_q.copy_(of_places @ table)
            of_q.baddbmm_(of_logits, k, alpha=scale)
            if of_table is not None:
                of_table.addmm_(of_places.flatten(0, 1).mT, q.flatten(0, 1))
        return of_fused, of_table, None, None


def _parts(fused: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of one image's queries, keys and values: (N, 3 dim) -> each (heads, N, dim / heads)."""
    q, k, v = fused.unflatten(-1, (3, heads, -1)).permute(1, 2, 0, 3).unbind(0)
    return q, k, v


def _places(terms: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Views of every query's products with the table, (heads, N, entries): the vertical and the horizontal ones.

    The table runs from y - y' = h - 1 to 1 - h, so a query's h terms are consecutive, and begin one place earlier for
    each step down; the same holds to the right.

    Returns:
        (heads, h, w, h) and (heads, h, w, w).
    """
    (height, width), (heads, count, entries) = grid, terms.shape
    shape = (heads, height, width)
    strides = (count * entries, width * entries - 1, entries, 1)
    down = terms.as_strided((*shape, height), strides, height - 1)
    strides = (count * entries, width * entries, entries - 1, 1)
    along = terms.as_strided((*shape, width), strides, 2 * height - 1 + width - 1)
    return down, along


def _gathered(of_logits: Tensor, grid: tuple[int, int], entries: int) -> Tensor:
    """The gradient of every query's products with the table, (heads, N, entries)."""
    height, width = grid
    terms = of_logits.new_zeros(*of_logits.shape[:2], entries)
    down, along = _places(terms, grid)
    pairs = of_logits.view(-1, height, width, height, width)
    down.copy_(pairs.sum(-1))
    along.copy_(pairs.sum(-2))
    return terms

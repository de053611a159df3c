"""Attention of both encoders: the published functions, computed with less memory traffic.

SAM adds to the logit of a query at (y, x) and a key at (y', x') the terms q.R_h[y - y'] and q.R_w[x - x']. The
published code keeps several copies of an N x N bias for this. Two computations here give the same numbers without it:

- Appended coordinates: q' = (q / sqrt(d), q.R_h[y - .], q.R_w[x - .]) and k' = (k, one-hot of y', one-hot of x') have
  the wanted product, so torch's fused kernels need no bias.
- ``GridProduct`` uses plain matrix products. It is faster on processors in full precision, on grids as small as a
  window.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from fedpeft.models.sam.grid_product import GridProduct
from fedpeft.models.sam.parts import Attention, encoder

# Tokens up to which a training step keeps the probabilities (one N x N matrix a head); SAM's windows have 196.
KEPT_TOKENS = 400


class PromptableAttention(Attention):
    """An attention that can be given prompts: keys and values without queries (see ``adapters/prompts.py``).

    Attributes:
        prompted: the normalisation and the module that give the prompt tokens; empty without prompts. They are in a
            tuple, so that their parameters have one path, that of the block.
    """

    prompted: tuple[nn.Module, ...] = ()

    def of_prompts(self) -> tuple[Tensor, ...]:
        """Keys and values of the prompts, each (1, heads, P, dim / heads); nothing without prompts."""
        if not self.prompted:
            return ()
        norm, prompts = self.prompted
        return split(self.qkv(norm(prompts()).unsqueeze(0)), self.num_heads)[1:]


class SequenceAttention(PromptableAttention):
    """Attention over a sequence of tokens, without relative positions."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised tokens (B, N, dim) -> the same shape."""
        q, k, v = split(self.qkv(x), self.num_heads)
        k, v = _joined((k, v), self.of_prompts())
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GridAttention(PromptableAttention):
    """SAM's attention over a grid of tokens, whole or in windows, with decomposed relative positions.

    Args:
        dim: channels.
        heads: attention heads.
        grid: height and width of the grid in tokens.
        window: height and width of the windows that the grid is cut into; the last ones may extend beyond its lower and
            right edges. 0: no windows.
    """

    def __init__(self, dim: int, heads: int, grid: int, window: int = 0) -> None:
        size = window or grid
        super().__init__(dim, heads, use_rel_pos=True, input_size=(size, size))
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Normalised tokens (B, h, w, dim) -> the same shape."""
        height, width = x.shape[1:3]
        if self.window == 0 or height == width == self.window:
            return self.proj(self._attended(self.qkv(x)))
        filled = self._filled(self.qkv(x))
        windows, padded = encoder.window_partition(filled, self.window)
        attended = encoder.window_unpartition(self._attended(windows), self.window, padded, (height, width))
        return self.proj(attended)

    def _filled(self, fused: Tensor) -> Tensor:
        """Extend the grid to whole windows, as SAM does: with tokens of zeros, whose keys and values count."""
        batch, height, width, _ = fused.shape
        nothing = self.qkv(fused.new_zeros(1, 1, 1, self.qkv.in_features))
        right, below = -width % self.window, -height % self.window
        fused = torch.cat([fused, nothing.expand(batch, height, right, -1)], dim=2)
        return torch.cat([fused, nothing.expand(batch, below, width + right, -1)], dim=1)

    def _attended(self, fused: Tensor) -> Tensor:
        """Attend within each grid: queries, keys and values (B, h, w, 3 dim) -> (B, h, w, dim)."""
        grid, tokens = fused.shape[1:3], fused.flatten(1, 2)
        if not self.prompted and _fits_in_plain_products(tokens):
            table = torch.cat([self.rel_pos_h.flip(0), self.rel_pos_w.flip(0)])
            return GridProduct.apply(tokens, table, grid, self.num_heads).unflatten(1, grid)
        q, k, v = split(tokens, self.num_heads)
        width = v.shape[-1]
        q, k = self._appended(q, k, grid)
        k, v = _joined((k, v), self.of_prompts())
        attended = scaled_dot_product_attention(q, k, pad(v, (0, k.shape[-1] - width)), scale=1.0)[..., :width]
        return attended.transpose(1, 2).flatten(2).unflatten(1, grid)

    def _appended(self, q: Tensor, k: Tensor, grid: torch.Size) -> tuple[Tensor, Tensor]:
        """Queries and keys (B, heads, N, d + h + w) whose product are the logits with their relative positions."""
        height, width = grid
        across = q.unflatten(2, grid)
        # (y, channel, y'): the table's entries in the order of y - y'.
        vertical, horizontal = (
            table.to(q.dtype).unfold(0, size, 1).flip(-1)
            for table, size in ((self.rel_pos_h, height), (self.rel_pos_w, width))
        )
        down = torch.einsum("bnyxc,yck->bnyxk", across, vertical).flatten(2, 3)
        along = torch.einsum("bnyxc,xck->bnyxk", across, horizontal).flatten(2, 3)
        of_y = torch.eye(height, dtype=q.dtype, device=q.device).repeat_interleave(width, dim=0)
        of_x = torch.eye(width, dtype=q.dtype, device=q.device).repeat(height, 1)
        places = torch.cat([of_y, of_x], dim=1)
        return (
            torch.cat([q * self.scale, down, along], dim=-1),
            torch.cat([k, places.expand(*k.shape[:2], -1, -1)], dim=-1),
        )


def split(fused: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, N, dim / heads) of a fused projection (B, N, 3 dim)."""
    q, k, v = fused.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _joined(own: tuple[Tensor, Tensor], of_prompts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Append the prompts' keys and values; their coordinates are zero, since they have no place in the grid."""
    if not of_prompts:
        return own
    k, v = (
        torch.cat([mine, pad(more, (0, mine.shape[-1] - more.shape[-1])).expand(len(mine), -1, -1, -1)], dim=2)
        for mine, more in zip(own, of_prompts, strict=True)
    )
    return k, v


def _fits_in_plain_products(tokens: Tensor) -> bool:
    exact = tokens.dtype in (torch.float32, torch.float64)
    small = tokens.shape[1] <= KEPT_TOKENS
    return tokens.device.type == "cpu" and exact and small and not torch.compiler.is_compiling()

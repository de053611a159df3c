"""Prompt tokens that are trained: VPT in its shallow and deep form, and DVPT's low-rank products of them.

VPT-deep puts tokens P of its own before every block, and throws away what becomes of them behind it. Nothing in a block
but the attention lets tokens see each other, so all that is left of P are the keys and values that the other tokens
attend to. ``attention.py`` computes these alone: the same function, without prompts' queries, projections and MLP. In a
windowed block of SAM every window sees the prompts; they have no place in the grid, so no relative position.
"""

from math import sqrt

import torch
from torch import Tensor, nn

from fedpeft.config.backbones import Backbone
from fedpeft.models.adapters.base import AdapterModule
from fedpeft.models.vit.network import VitEncoder


def deviation_of(row: Backbone) -> float:
    """Standard deviation of prompts at the start.

    VPT draws them uniformly within +-sqrt(6 / (3 patch^2 + dim)); ours are gaussian with the same variance.
    """
    return sqrt(2 / (3 * row.patch**2 + row.dim))


class Prompts(AdapterModule):
    """Prompt tokens (VPT, Jia et al. 2022).

    Args:
        count: of tokens.
        row: the backbone, which gives width and deviation.

    Attributes:
        P: (count, dim), gaussian at the start.
    """

    def __init__(self, count: int, row: Backbone) -> None:
        super().__init__()
        self.row = row
        self.P = nn.Parameter(torch.empty(count, row.dim))

    def deviation(self, leaf: str) -> float:
        """Standard deviation of P's gaussian at the start."""
        return deviation_of(self.row)

    def forward(self) -> Tensor:
        """The tokens, (count, dim)."""
        return self.P


class LowRankPrompts(AdapterModule):
    """Prompt tokens P = B A (DVPT, after Alkhunaizi et al. 2024).

    Only the abstract of the paper was available to us, which says that prompts are decomposed into a product of low
    rank. Ours are the factors' names, that every block has a product of its own, and the start.

    Args:
        count: of tokens.
        rank: of the product.
        row: the backbone, which gives width and deviation.

    Attributes:
        A: (rank, dim) and B: (count, rank), gaussian at the start. P then has the variance of VPT's prompts, and both
            factors the same Frobenius norm on average, as the factors that the server makes of an average.

    Raises:
        ValueError: the rank is more than a product of this shape can have.
    """

    def __init__(self, count: int, rank: int, row: Backbone) -> None:
        super().__init__()
        if rank > min(count, row.dim):
            raise ValueError(
                f"rank {rank} of {count} prompts of width {row.dim}: expected at most {min(count, row.dim)}; "
                f"lower the rank or take more prompts"
            )
        self.row = row
        self.A = nn.Parameter(torch.empty(rank, row.dim))
        self.B = nn.Parameter(torch.empty(count, rank))

    def deviation(self, leaf: str) -> float:
        """Standard deviation of a factor's gaussian at the start."""
        (count, rank), dim = self.B.shape, self.row.dim
        each = sqrt(deviation_of(self.row) / sqrt(rank))
        return each * (count / dim if leaf == "A" else dim / count) ** 0.25

    def forward(self) -> Tensor:
        """The tokens, (count, dim)."""
        return self.B @ self.A


class PromptedEncoder(VitEncoder):
    """A Vision Transformer with prompts between the class token and the patches of its first block (VPT-shallow).

    All blocks carry them on; they have no positions.

    Args:
        image_encoder: the encoder; its parts keep their names.
        prompts: gives the tokens, (P, dim).
    """

    def __init__(self, image_encoder: VitEncoder, prompts: nn.Module) -> None:
        vars(self).update(vars(image_encoder))
        self.prompts = prompts

    def tokens(self, images: Tensor) -> Tensor:
        """What the first block sees: normalised (B, 3, side, side) -> (B, 1 + P + N, dim)."""
        tokens = super().tokens(images)
        prompts = self.prompts().expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1)

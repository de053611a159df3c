"""DVPT: every block's prompt tokens as a low-rank product (after Alkhunaizi et al. 2024).

We had only the paper's abstract, which says that prompts are decomposed into a low-rank product. The factors' names,
a separate product for every block and the initial values are our choices.
"""

from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from fedpeft.config.backbones import Backbone
from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import AdapterModule
from fedpeft.models.adapters.prompts import give_prompts, prompt_deviation
from fedpeft.models.adapters.registry import register_adapter
from fedpeft.models.initial_values import Gaussian, Initial
from fedpeft.models.sam.parts import Block


class LowRankPrompts(AdapterModule):
    """Prompt tokens P = B A.

    Args:
        count: of tokens.
        rank: of the product.
        backbone: gives the tokens' width and their deviation at the start.

    Attributes:
        A: (rank, dim) and B: (count, rank), Gaussian at the start. P then has the variance of VPT's prompts, and both
            factors have the same Frobenius norm on average, like the factors that the server returns.

    Raises:
        ValueError: the rank is more than a product of this shape can have.
    """

    def __init__(self, count: int, rank: int, backbone: Backbone) -> None:
        super().__init__()
        if rank > min(count, backbone.dim):
            raise ValueError(
                f"rank {rank} of {count} prompts of width {backbone.dim}: expected at most {min(count, backbone.dim)}; "
                f"lower the rank or take more prompts"
            )
        self.backbone = backbone
        self.A = nn.Parameter(torch.empty(rank, backbone.dim))
        self.B = nn.Parameter(torch.empty(count, rank))

    def initial(self, leaf: str) -> Initial:
        """How a factor starts."""
        (count, rank), dim = self.B.shape, self.backbone.dim
        each = sqrt(prompt_deviation(self.backbone) / sqrt(rank))
        return Gaussian(each * (count / dim if leaf == "A" else dim / count) ** 0.25)

    def forward(self) -> Tensor:
        """The tokens, (count, dim)."""
        return self.B @ self.A


@register_adapter("low_rank_prompts", layer=Block)
def put_low_rank_prompts(model: nn.Module, layers: dict[str, Block], adapter: Adapter, options: Any, run: Run) -> None:
    """Give each of the blocks separate prompts."""
    for block in layers.values():
        give_prompts(block, LowRankPrompts(options.prompts, options.rank, run.backbone))

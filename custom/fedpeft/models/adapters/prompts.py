"""Prompt tokens that are trained: VPT in its deep and its shallow form (Jia et al. 2022).

VPT-deep puts separate tokens P before every block and discards their outputs after it. In a block, tokens interact only
in the attention, so P acts only through the keys and values that the other tokens attend to. ``attention.py`` computes
these alone: the same function, without the prompts' queries, projections and MLP. In a windowed block of SAM every
window attends to the prompts; they have no place in the grid, and so no relative position.
"""

from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from fedpeft.config.backbones import Backbone
from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import AdapterModule, replace_module
from fedpeft.models.adapters.registry import register_adapter
from fedpeft.models.initial_values import Gaussian, Initial
from fedpeft.models.sam.parts import Block
from fedpeft.models.vit.network import VitEncoder


def prompt_deviation(backbone: Backbone) -> float:
    """Standard deviation of prompts at the start.

    VPT's are uniform within +-sqrt(6 / (3 patch^2 + dim)); ours are Gaussian with the same variance.
    """
    return sqrt(2 / (3 * backbone.patch**2 + backbone.dim))


class Prompts(AdapterModule):
    """Prompt tokens.

    Args:
        count: of tokens.
        backbone: gives their width and the deviation at the start.

    Attributes:
        P: (count, dim), Gaussian at the start.
    """

    def __init__(self, count: int, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.P = nn.Parameter(torch.empty(count, backbone.dim))

    def initial(self, leaf: str) -> Initial:
        """How P starts."""
        return Gaussian(prompt_deviation(self.backbone))

    def forward(self) -> Tensor:
        """The tokens, (count, dim)."""
        return self.P


class PromptedEncoder(VitEncoder):
    """A Vision Transformer with prompts between the class token and the patches of its first block (VPT-shallow).

    They pass through all blocks and have no positions.

    Args:
        image_encoder: the encoder; its parts keep their names.
        prompts: gives the tokens, (P, dim).
    """

    def __init__(self, image_encoder: VitEncoder, prompts: nn.Module) -> None:
        self.__dict__.update(image_encoder.__dict__)
        self.prompts = prompts

    def tokens(self, images: Tensor) -> Tensor:
        """Input of the first block: normalised (B, 3, size, size) -> (B, 1 + P + N, dim)."""
        tokens = super().tokens(images)
        prompts = self.prompts().expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1)


def give_prompts(block: Block, prompts: nn.Module) -> None:
    """Let a block's attention attend to the tokens that ``prompts`` gives, (P, dim), beside its own."""
    block.prompts = prompts
    block.attn.prompted = (block.norm1, prompts)


@register_adapter("prompts", layer=Block)
def put_prompts(model: nn.Module, layers: dict[str, Block], adapter: Adapter, options: Any, run: Run) -> None:
    """Give each of the blocks separate prompts."""
    for block in layers.values():
        give_prompts(block, Prompts(options.prompts, run.backbone))


@register_adapter(
    "first_prompts",
    layer=VitEncoder,
    remedy="a grid of patches carries no prompts from block to block: take vpt_deep or a ViT",
)
def put_first_prompts(
    model: nn.Module, layers: dict[str, VitEncoder], adapter: Adapter, options: Any, run: Run
) -> None:
    """Put prompts before the first block of the encoder."""
    for path, image_encoder in layers.items():
        prompts = Prompts(options.prompts, run.backbone)
        replace_module(model, path, PromptedEncoder(image_encoder, prompts))

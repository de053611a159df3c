"""The plain Vision Transformer (Dosovitskiy et al. 2021), made of the same blocks as SAM's image encoder."""

from functools import partial

import torch
from torch import Tensor, nn

from fedpeft.config.run import Run
from fedpeft.models.classifier import Classifier
from fedpeft.models.networks import register_network
from fedpeft.models.sam.attention import SequenceAttention
from fedpeft.models.sam.parts import Block, encoder

EPSILON = 1e-6


def _block(dim: int, heads: int) -> Block:
    block = Block(dim, heads, norm_layer=partial(nn.LayerNorm, eps=EPSILON))
    block.attn = SequenceAttention(dim, heads)
    return block


class VitEncoder(nn.Module):
    """Patches, class token, positions, blocks and a last normalisation, named as in timm (an MLP's layers as in SAM).

    Args:
        run: gives backbone and image size.

    Attributes:
        cls_token: (1, 1, dim).
        pos_embed: (1, 1 + N, dim), the class token's position first, then the grid's, line by line.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        backbone, patch = run.backbone, (run.backbone.patch,) * 2
        dim = backbone.dim
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (run.model.image_size // backbone.patch) ** 2, dim))
        self.patch_embed = encoder.PatchEmbed(patch, patch, embed_dim=dim)
        self.blocks = nn.ModuleList(_block(dim, backbone.heads) for _ in range(backbone.depth))
        self.norm = nn.LayerNorm(dim, eps=EPSILON)

    def tokens(self, images: Tensor) -> Tensor:
        """Input of the first block: normalised (B, 3, size, size) -> class token and patches, (B, 1 + N, dim)."""
        patches = self.patch_embed(images).flatten(1, 2)
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed

    def forward(self, images: Tensor) -> Tensor:
        """The class token after the last normalisation: (B, 3, size, size) -> (B, dim)."""
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


@register_network("vit", "classification")
class VitClassifier(Classifier):
    """A head on the class token of a Vision Transformer.

    Args:
        run: gives backbone, image size and classes.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(VitEncoder(run), run.backbone.dim, run.outputs)

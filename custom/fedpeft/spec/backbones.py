"""Backbones: the foundation models that can be adapted, as rows."""

from dataclasses import dataclass

from fedpeft.spec.lookup import find

# A checkpoint's tensors under these prefixes never fit: they depend on the number of classes and the upscaling factor.
OUTPUT_HEAD = (
    "mask_decoder.mask_tokens.",
    "mask_decoder.output_hypernetworks_mlps.",
    "mask_decoder.iou_prediction_head.",
)


@dataclass(frozen=True)
class Backbone:
    """A SAM-shaped backbone.

    Attributes:
        name: what commands, jobs and site files call it.
        side: default input side in pixels, a multiple of ``patch``.
        published_side: side at which the published checkpoint was trained.
        patch: patch side in pixels; the mask decoder upscales by the same factor, back to the input's resolution.
        dim, depth, heads: the image encoder's width, number of blocks and attention heads.
        window: side of an attention window in tokens (0: every block is global).
        global_blocks: blocks that attend over the whole grid.
        neck: channels between image encoder and mask decoder.
        decoder_heads, decoder_mlp: attention heads and MLP width of the two-way transformer (depth 2).
        upscaling: channels after each transposed convolution (a factor 2 each) of the mask decoder.
        fresh: prefixes of tensors that are always drawn anew, whatever the checkpoint holds.
        resource: file name in ``fedpeft/model/weights`` for a backbone that is shipped with the package.
        rank: default adapter rank.
        learning_rate: step size for adapters; a method's ``rate`` scales it.
        task: the task that its head serves.
    """

    name: str
    side: int
    published_side: int
    patch: int
    dim: int
    depth: int
    heads: int
    window: int
    global_blocks: tuple[int, ...]
    neck: int
    decoder_heads: int
    decoder_mlp: int
    upscaling: tuple[int, ...]
    rank: int
    learning_rate: float
    fresh: tuple[str, ...] = OUTPUT_HEAD
    resource: str | None = None
    task: str = "segmentation"


_ROWS = (
    # Kirillov et al. 2023, ViT-B; side, rank and step size of the FLAP-SAM paper's experiments.
    Backbone(
        "sam_vit_b", side=224, published_side=1024, patch=16, dim=768, depth=12, heads=12, window=14,
        global_blocks=(2, 5, 8, 11), neck=256, decoder_heads=8, decoder_mlp=2048, upscaling=(64, 32, 16, 8),
        rank=32, learning_rate=8e-4,
    ),
    # Small enough for two CPU cores; pretrained by fedpeft.train.pretrain on synthetic images alone.
    Backbone(
        "sam_tiny", side=96, published_side=96, patch=8, dim=128, depth=4, heads=4, window=0,
        global_blocks=(0, 1, 2, 3), neck=64, decoder_heads=4, decoder_mlp=256, upscaling=(32, 16, 8),
        rank=8, learning_rate=2e-3, resource="sam_tiny.safetensors",
    ),
)

BACKBONES: dict[str, Backbone] = {row.name: row for row in _ROWS}


def backbone(name: str) -> Backbone:
    """The row called ``name``; ValueError if there is none."""
    return find(BACKBONES, name, "backbone")

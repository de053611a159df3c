"""Backbones: registry entries of the foundation models that can be adapted."""

from dataclasses import dataclass, replace

from fedpeft.common.registry import Registry

# A checkpoint's tensors under these prefixes never fit: they depend on the number of classes and the upscaling factor.
OUTPUT_HEAD = (
    "mask_decoder.mask_tokens.",
    "mask_decoder.output_hypernetworks_mlps.",
    "mask_decoder.iou_prediction_head.",
    "head.",
)


# Mean and standard deviation of red, green and blue in pretraining: timm's ViT-B/16, and ImageNet's statistics.
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Backbone:
    """A foundation model's shape.

    Attributes:
        name: what commands, jobs and site files call it.
        family: "sam" or "vit", see ``fedpeft.models.networks``.
        tasks: what it can be adapted to.
        image_size: default height and width of the input in pixels, a multiple of ``patch``.
        published_image_size: image size at which the published checkpoint was trained.
        patch: height and width of a patch in pixels; SAM's mask decoder upscales by the same factor, back to the
            input's resolution.
        dim, depth, heads: the image encoder's width, number of blocks and attention heads.
        window: SAM: height and width of an attention window in tokens (0: every block is global).
        global_blocks: SAM: blocks that attend over the whole grid.
        neck: SAM: channels between image encoder and mask decoder.
        decoder_heads, decoder_mlp: SAM: attention heads and MLP width of the two-way transformer (depth 2).
        upscaling: SAM: channels after each transposed convolution (a factor 2 each) of the mask decoder.
        colours: mean and standard deviation of red, green and blue, 0 to 1, by which images are normalised.
        fresh: prefixes of tensors that always start at random, whatever the checkpoint holds.
        resource: file name in ``fedpeft/models/weights`` for a backbone that is shipped with the package.
        rank: default adapter rank.
        learning_rate: default peak learning rate of adapters; a method's ``rate`` scales it.
    """

    name: str
    image_size: int
    published_image_size: int
    patch: int
    dim: int
    depth: int
    heads: int
    rank: int
    learning_rate: float
    window: int = 0
    global_blocks: tuple[int, ...] = ()
    neck: int = 0
    decoder_heads: int = 0
    decoder_mlp: int = 0
    upscaling: tuple[int, ...] = ()
    colours: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    fresh: tuple[str, ...] = OUTPUT_HEAD
    resource: str | None = None
    family: str = "sam"
    tasks: tuple[str, ...] = ("segmentation", "classification")


BACKBONES: Registry[Backbone] = Registry("backbone")


def register_backbones(*entries: Backbone) -> None:
    """Add backbones; ValueError if there is one of that name."""
    for entry in entries:
        BACKBONES.register(entry.name, entry)


def backbone(name: str) -> Backbone:
    """The entry called ``name``; ValueError if there is none."""
    return BACKBONES.find(name)


# Kirillov et al. 2023, ViT-B; image size, rank and learning rate of the FLAP-SAM paper's experiments.
SAM_VIT_B = Backbone(
    "sam_vit_b",
    image_size=224,
    published_image_size=1024,
    patch=16,
    dim=768,
    depth=12,
    heads=12,
    window=14,
    global_blocks=(2, 5, 8, 11),
    neck=256,
    decoder_heads=8,
    decoder_mlp=2048,
    upscaling=(64, 32, 16, 8),
    rank=32,
    learning_rate=8e-4,
)

register_backbones(
    SAM_VIT_B,
    # Kirillov et al. 2023, ViT-L and ViT-H: another image encoder, all else as in ViT-B. MA-SAM's code trains ViT-H
    # with the same rank and learning rate.
    replace(SAM_VIT_B, name="sam_vit_l", dim=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
    replace(SAM_VIT_B, name="sam_vit_h", dim=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
    # Small enough for two CPU cores; pretrained on synthetic images alone.
    Backbone(
        "sam_tiny",
        image_size=96,
        published_image_size=96,
        patch=8,
        dim=128,
        depth=4,
        heads=4,
        window=0,
        global_blocks=(0, 1, 2, 3),
        neck=64,
        decoder_heads=4,
        decoder_mlp=256,
        upscaling=(32, 16, 8),
        rank=8,
        learning_rate=2e-3,
        resource="sam_tiny.safetensors",
    ),
    # Dosovitskiy et al. 2021, ViT-B/16.
    Backbone(
        "vit_b16",
        image_size=224,
        published_image_size=224,
        patch=16,
        dim=768,
        depth=12,
        heads=12,
        rank=8,
        learning_rate=1e-3,
        colours=HALF,
        fresh=("head.",),
        family="vit",
        tasks=("classification",),
    ),
    # Small enough for two CPU cores; pretrained on synthetic images alone.
    Backbone(
        "vit_tiny",
        image_size=64,
        published_image_size=64,
        patch=8,
        dim=128,
        depth=6,
        heads=4,
        rank=4,
        learning_rate=2e-3,
        fresh=("head.",),
        resource="vit_tiny.safetensors",
        family="vit",
        tasks=("classification",),
    ),
)

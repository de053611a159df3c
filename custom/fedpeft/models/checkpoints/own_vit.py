"""Vision Transformers under the names of our own model, as ``fedpeft`` ships and saves them."""

from fedpeft.models.checkpoints.format import Format, register_format

register_format(
    "own_vit",
    Format(
        "vit",
        "our own",
        example="image_encoder.blocks.0.mlp.lin1.weight",
        mark=r"image_encoder\.patch_embed\.proj\.weight",
        ignored=r"head\.",
    ),
)

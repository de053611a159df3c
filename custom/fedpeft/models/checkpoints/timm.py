"""Vision Transformers under the names of timm, which the files of MAE and DINOv2 use too."""

from fedpeft.models.checkpoints.format import Format, register_format
from fedpeft.models.checkpoints.layers import fold_layer_scale

register_format(
    "timm",
    Format(
        "vit",
        "timm's, MAE's, DINOv2's",
        example="blocks.0.mlp.fc1.weight",
        mark=r"patch_embed\.proj\.weight",
        # MAE's decoder, and the tokens with which MAE and DINOv2 mask patches.
        ignored=r"(head\.|decoder_|mask_token$)",
        names=(
            (r"\.mlp\.fc([12])\.", r".mlp.lin\1."),
            (r"^(cls_token$|pos_embed$|patch_embed\.|blocks\.|norm\.)", r"image_encoder.\1"),
        ),
        steps=(fold_layer_scale,),
    ),
)

"""Vision Transformers under the names of Hugging Face's ViT and Dinov2."""

from fedpeft.models.checkpoints.format import Format, register_format
from fedpeft.models.checkpoints.layers import fold_layer_scale, join_projections

register_format(
    "hugging_face",
    Format(
        "vit",
        "Hugging Face's ViT and Dinov2",
        example="vit.encoder.layer.0.attention.attention.query.weight",
        mark=r"((vit|dinov2)\.)?embeddings\.patch_embeddings\.projection\.weight",
        ignored=r"((vit|dinov2)\.)?(pooler\.|classifier\.|decoder\.|embeddings\.mask_token$)",
        names=(
            (r"^(vit|dinov2)\.", ""),
            (r"^embeddings\.cls_token$", "image_encoder.cls_token"),
            (r"^embeddings\.position_embeddings$", "image_encoder.pos_embed"),
            (r"^embeddings\.patch_embeddings\.projection\.", "image_encoder.patch_embed.proj."),
            (r"^layernorm\.", "image_encoder.norm."),
            (r"^encoder\.layer\.", "image_encoder.blocks."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.attention\.attention\.", ".attn."),
            (r"\.attention\.output\.dense\.", ".attn.proj."),
            (r"\.intermediate\.dense\.", ".mlp.lin1."),
            (r"\.output\.dense\.", ".mlp.lin2."),
            (r"\.mlp\.fc([12])\.", r".mlp.lin\1."),
            (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
        ),
        steps=(join_projections, fold_layer_scale),
    ),
)

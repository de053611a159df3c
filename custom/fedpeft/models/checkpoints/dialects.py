"""The names that published Vision Transformers give their tensors, translated into ours.

A form is a row: one more is one row. What has no name of its own in our model is worked into the tensors that have:
separate projections of queries, keys and values are joined, LayerScale's factors multiply the layer before them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from fedpeft.config.backbones import Backbone


@dataclass(frozen=True)
class Dialect:
    """A form of names; all patterns are regular expressions.

    Attributes:
        form: whose names they are, for people.
        example: one of the names.
        mark: a name that every file of this form has.
        ignored: how names begin that our encoder has no use for.
        names: pairs of a pattern and what takes its place, applied in turn.
    """

    form: str
    example: str
    mark: str
    ignored: str
    names: tuple[tuple[str, str], ...] = ()

    def ours(self, key: str) -> str:
        """Our name of a tensor; what the form does not know stays as it is."""
        for pattern, name in self.names:
            key = re.sub(pattern, name, key)
        return key


_VIT = (
    Dialect(
        "our own",
        "image_encoder.blocks.0.mlp.lin1.weight",
        mark=r"image_encoder\.patch_embed\.proj\.weight",
        ignored=r"head\.",
    ),
    Dialect(
        "timm's, MAE's, DINOv2's",
        "blocks.0.mlp.fc1.weight",
        mark=r"patch_embed\.proj\.weight",
        ignored=r"(head\.|decoder_|mask_token$)",
        names=(
            (r"\.mlp\.fc([12])\.", r".mlp.lin\1."),
            (r"^(cls_token$|pos_embed$|patch_embed\.|blocks\.|norm\.)", r"image_encoder.\1"),
        ),
    ),
    Dialect(
        "Hugging Face's ViT and Dinov2",
        "vit.encoder.layer.0.attention.attention.query.weight",
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
    ),
)

# The backbone's family -> the forms in which its files come; none: names are the model's own.
DIALECTS: dict[str, tuple[Dialect, ...]] = {"sam": (), "vit": _VIT}


def translated(found: dict[str, Tensor], row: Backbone) -> dict[str, Tensor] | None:
    """A file's tensors under our names, or None where their names are of no known form."""
    dialects = DIALECTS[row.family]
    if not dialects:
        return found
    dialect = next((one for one in dialects if any(re.fullmatch(one.mark, key) for key in found)), None)
    if dialect is None:
        return None
    tensors = {dialect.ours(key): tensor for key, tensor in found.items() if not re.match(dialect.ignored, key)}
    return _scaled(_joined(tensors))


def remedy(row: Backbone) -> str:
    """What files of a backbone are expected to be."""
    forms = ", ".join(f"{dialect.form} ({dialect.example!r})" for dialect in DIALECTS[row.family])
    return f"Use the {row.name} checkpoint as it was published" + (f"; known names are {forms}" if forms else "")


def shown(keys: Iterable[str], most: int = 3) -> str:
    """The first of some names, for a message."""
    return ", ".join(repr(key) for key in islice(keys, most)) or "none"


def _joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries', keys' and values' projections as the one layer ``qkv``, wherever all three are there."""
    joined = dict(tensors)
    for query in [key for key in tensors if ".attn.query." in key]:
        three = [query.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(key in tensors for key in three):
            joined[query.replace(".query.", ".qkv.")] = torch.cat([joined.pop(key) for key in three])
    return joined


def _scaled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without LayerScale: x + g (W h + b) = x + (g W) h + g b, with g along the rows of W (Touvron et al. 2021)."""
    scaled = dict(tensors)
    for gamma in [key for key in tensors if re.search(r"\.ls[12]\.gamma$", key)]:
        layer = gamma.replace(".ls1.gamma", ".attn.proj").replace(".ls2.gamma", ".mlp.lin2")
        weight, bias = (tensors.get(f"{layer}.{leaf}") for leaf in ("weight", "bias"))
        factor = tensors[gamma].double()
        # What does not fit stays, and is refused by its name.
        if weight is not None and bias is not None and weight.shape[:1] == bias.shape == factor.shape:
            del scaled[gamma]
            scaled[f"{layer}.weight"] = (weight.double() * factor.unsqueeze(1)).float()
            scaled[f"{layer}.bias"] = (bias.double() * factor).float()
    return scaled

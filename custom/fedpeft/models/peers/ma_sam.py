"""MA-SAM's files: FacT's cores by position, its bases, 3-D adapters, prompt encoder and mask decoder by name."""

import re
from typing import ClassVar

import torch

from fedpeft.models.peers.form import Measured, PeerForm, Tensors, classes_in, register_peer, renamed

CORE = re.compile(r"[qv]_FacTs_\d+")
BASES = (("image_encoder.FacTu.weight", "image_encoder.fact.U"), ("image_encoder.FacTv.weight", "image_encoder.fact.V"))
# Our core of all slots, (slots, rank, rank): q and v in turn over the blocks.
S = "image_encoder.fact.S"
# Their names of the parts of an adapter -> ours; those of the one before the MLP end in _2.
PARTS = {"linear_down": "down", "linear_up": "up", "conv": "conv", "norm": "norm"}
BLOCK = "image_encoder.ImageEncoderViT.blocks"
TO_OURS = tuple(
    (
        rf"^{re.escape(BLOCK)}\.(\d+)\.Block\.adapter_{theirs}{ending}\.",
        rf"image_encoder.blocks.\1.slices.{where}.{ours}.",
    )
    for theirs, ours in PARTS.items()
    for where, ending in (("attn", ""), ("mlp", "_2"))
)
TO_THEIRS = tuple(
    (
        rf"^image_encoder\.blocks\.(\d+)\.slices\.{where}\.{ours}\.",
        rf"{BLOCK}.\1.Block.adapter_{theirs}{ending}.",
    )
    for theirs, ours in PARTS.items()
    for where, ending in (("attn", ""), ("mlp", "_2"))
)


class MASam(PeerForm):
    """Chen et al. 2024: FacT (tensor train) on q, v of the encoder, 3-D adapters, a 16x mask decoder."""

    name = "ma_sam"
    title = "MA-SAM"
    mark = r"q_FacTs_\d+"
    methods = ("ma_sam",)
    image_size = 512
    data: ClassVar = {"preprocessing": "ma_sam", "stack_ends": "repeat", "stride": 1}

    def measured(self, tensors: Tensors) -> Measured:
        """See ``PeerForm``."""
        rank, dim = tensors[BASES[0][0]].shape
        depth = sum(name.startswith("q_FacTs_") for name in tensors)
        return Measured(dim, depth, classes_in(tensors), options={"rank": rank})

    def ours(self, tensors: Tensors) -> Tensors:
        """See ``PeerForm``."""
        depth = sum(name.startswith("q_FacTs_") for name in tensors)
        cores = [tensors[f"{part}_FacTs_{block:03d}"] for block in range(depth) for part in "qv"]
        others = {name: tensor for name, tensor in tensors.items() if not CORE.fullmatch(name)}
        bases = tuple((f"^{re.escape(theirs)}$", ours) for theirs, ours in BASES)
        return renamed(others, (*bases, *TO_OURS)) | {S: torch.stack(cores)}

    def theirs(self, tensors: Tensors) -> Tensors:
        """See ``PeerForm``."""
        cores = {f"{'qv'[slot % 2]}_FacTs_{slot // 2:03d}": core.clone() for slot, core in enumerate(tensors[S])}
        others = {name: tensor for name, tensor in tensors.items() if name != S}
        bases = tuple((f"^{re.escape(ours)}$", theirs) for theirs, ours in BASES)
        return cores | renamed(others, (*bases, *TO_THEIRS))


register_peer(MASam())

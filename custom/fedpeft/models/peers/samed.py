"""SAMed's files: LoRA by position, q and v in turn over the blocks; prompt encoder and mask decoder by name."""

import re
from typing import ClassVar

from fedpeft.models.peers.form import Measured, PeerForm, Tensors, classes_in, register_peer

# w_a_<number> and w_b_<number>; the number is 2 * block, and one more for v.
THEIRS = re.compile(r"w_([ab])_(\d+)")
OURS = re.compile(r"image_encoder\.blocks\.(\d+)\.attn\.qkv\.lora\.([qv])\.([AB])")


class SAMed(PeerForm):
    """Zhang and Liu 2023: LoRA on q, v of the encoder, SAM's own 4x mask decoder."""

    name = "samed"
    title = "SAMed"
    mark = r"w_a_\d+"
    unlike = r"fati_qa|sa_a_\d+"
    methods = ("samed",)
    image_size = 512
    data: ClassVar = {"preprocessing": "samed"}

    def measured(self, tensors: Tensors) -> Measured:
        """See ``PeerForm``."""
        rank, dim = tensors["w_a_000"].shape
        depth = sum(name.startswith("w_a_") for name in tensors) // 2
        return Measured(dim, depth, classes_in(tensors), options={"rank": rank})

    def ours(self, tensors: Tensors) -> Tensors:
        """See ``PeerForm``."""
        return {THEIRS.sub(_our_name, name): tensor for name, tensor in tensors.items()}

    def theirs(self, tensors: Tensors) -> Tensors:
        """See ``PeerForm``."""
        return {OURS.sub(_their_name, name): tensor for name, tensor in tensors.items()}


def _our_name(match: re.Match[str]) -> str:
    block, part = divmod(int(match[2]), 2)
    return f"image_encoder.blocks.{block}.attn.qkv.lora.{'qv'[part]}.{match[1].upper()}"


def _their_name(match: re.Match[str]) -> str:
    return f"w_{match[3].lower()}_{2 * int(match[1]) + 'qv'.index(match[2]):03d}"


register_peer(SAMed())

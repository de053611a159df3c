"""MedSAM's files: all of SAM's tensors under SAM's own names, trained on medical images with box prompts.

They are a foundation model to start from, not an adapted network: a method's own output head is new.
"""

from pathlib import Path
from typing import ClassVar

from fedpeft.models.peers.form import Measured, PeerForm, Tensors, encoder_in, register_peer


class MedSam(PeerForm):
    """Ma et al. 2024."""

    name = "medsam"
    title = "MedSAM"
    what = "SAM's weights without adapters, as published by Meta or as"
    mark = r"image_encoder\.patch_embed\.proj\.weight"
    # Adapters, and a third upscaling stage, which SAM's own decoder does not have.
    unlike = r".*\.lora_w_.*|.*\.lora\..*|mask_decoder\.output_upscaling\.6\.weight|(q_FacTs|w_a)_\d+"
    methods = ("full_ft",)
    parts = ("",)
    foundation = True
    # Of those here, the closest to its own: percentiles of the volume to 0 and 1, slices stretched.
    data: ClassVar = {"preprocessing": "authors"}

    def measured(self, tensors: Tensors) -> Measured:
        """See ``PeerForm``."""
        dim, depth, pixels = encoder_in(tensors)
        return Measured(dim, depth, image_size=pixels)

    def remedy(self, file: Path, tensors: Tensors) -> str:
        """See ``PeerForm``."""
        return (
            f"SAM's own needs no import, give it as --base and --checkpoint; import MedSAM's with: fedpeft import "
            f"--format {self.name} --file {file} --out RUN"
        )

    def ours(self, tensors: Tensors) -> Tensors:
        """See ``PeerForm``; our names are SAM's."""
        return dict(tensors)


register_peer(MedSam())

"""FLAP-SAM's files: every tensor of SAM, with the low-rank factors of each attention beside its projections."""

import re
from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor

from fedpeft.models.peers.form import (
    MASK_TOKENS,
    Measured,
    PeerForm,
    Tensors,
    classes_in,
    encoder_in,
    register_peer,
)

# <attention>.lora_w_<a or b>_<q or v>.<expert>.weight
FACTOR = re.compile(r"(.*\.)lora_w_([ab])_([qv])\.(\d+)\.weight")
MAGNITUDE = re.compile(r"(.*\.)dora_m_([qv])")
GATE = re.compile(r"(.*\.)lora_scale")
OUR_LEAF = re.compile(r"(.*\.)(?:qkv\.lora\.([qv])|([qv])_proj\.lora)\.(?:(\d+)\.)?(A|B|magnitude)")
OUR_GATE = re.compile(r"(.*\.)gate\.theta")


class FlapSam(PeerForm):
    """Federated LoRA, DoRA or MoLE of encoder and decoder, and the same network fine-tuned without them."""

    name = "flap_sam"
    title = "FLAP-SAM"
    what = "a model"
    # A third upscaling stage, which SAM's own decoder does not have.
    mark = r".*\.lora_w_a_[qv]\.\d+\.weight|mask_decoder\.output_upscaling\.6\.weight"
    unlike = r"(q_FacTs|w_a)_\d+|.*\.lora\..*"
    methods = (
        "lora_ft",
        "flap_sam",
        "lora_dec_ft",
        "mole",
        "dora_frozen",
        "dora",
        "pdec_ft",
        "dec_ft",
        "attn_ft",
        "attn_ft_head",
        "full_ft",
    )
    parts = ("",)
    data: ClassVar = {"preprocessing": "authors", "stack_ends": "repeat", "stride": 1}

    def recognises(self, names: Iterable[str]) -> bool:
        """See ``PeerForm``; a foundation model may also have a third stage, but no mask tokens of classes."""
        known = list(names)
        return super().recognises(known) and (MASK_TOKENS in known or any(map(FACTOR.fullmatch, known)))

    def measured(self, tensors: Tensors) -> Measured:
        """See ``PeerForm``.

        Raises:
            ValueError: it has several experts and no gates, as the global file of their federation.
        """
        dim, depth, pixels = encoder_in(tensors)
        factors = {match[4]: tensor for name, tensor in tensors.items() if (match := FACTOR.fullmatch(name))}
        options = {}
        if factors:
            first = next(tensor for name, tensor in tensors.items() if ".lora_w_a_" in name)
            options["rank"] = len(first)
        if len(factors) > 1:
            options["experts"] = len(factors)
            if not any(GATE.fullmatch(name) for name in tensors):
                raise ValueError(
                    f"it holds {len(factors)} experts and no lora_scale, which weights them: FLAP-SAM keeps these in "
                    f"the clients' files; give one of these, client_<site>_ckpt_<number>.pth"
                )
        return Measured(dim, depth, classes_in(tensors), pixels, options)

    def ours(self, tensors: Tensors) -> Tensors:
        """See ``PeerForm``."""
        mixed = any((match := FACTOR.fullmatch(name)) and match[4] != "0" for name in tensors)
        return dict(_ours(name, tensor, mixed) for name, tensor in tensors.items())

    def theirs(self, tensors: Tensors) -> Tensors:
        """See ``PeerForm``."""
        return dict(_theirs(name, tensor) for name, tensor in tensors.items())

    def wrapped(self, tensors: Tensors, rounds: int) -> dict[str, object]:
        """See ``PeerForm``; the epoch is the 0-based number of the last round."""
        return {"epoch": max(rounds - 1, 0), "state_dict": tensors}


def _layer(attention: str, part: str) -> str:
    """Our place of an attention's adapters: the encoder's projections are fused, the decoder's are layers each."""
    fused = attention.startswith("image_encoder.")
    return f"{attention}qkv.lora.{part}" if fused else f"{attention}{part}_proj.lora"


def _ours(name: str, tensor: Tensor, mixed: bool) -> tuple[str, Tensor]:
    if match := FACTOR.fullmatch(name):
        attention, leaf, part, expert = match.groups()
        return f"{_layer(attention, part)}.{f'{expert}.' if mixed else ''}{leaf.upper()}", tensor
    if match := MAGNITUDE.fullmatch(name):
        # They keep the dimension of the norm, (1, inputs).
        return f"{_layer(match[1], match[2])}.magnitude", tensor.squeeze(0)
    return GATE.sub(r"\1gate.theta", name), tensor


def _theirs(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if match := OUR_LEAF.fullmatch(name):
        attention, part = match[1], match[2] or match[3]
        if match[5] == "magnitude":
            return f"{attention}dora_m_{part}", tensor.unsqueeze(0)
        return f"{attention}lora_w_{match[5].lower()}_{part}.{match[4] or 0}.weight", tensor
    return OUR_GATE.sub(r"\1lora_scale", name), tensor


register_peer(FlapSam())

"""Files as FLAP-SAM, SAMed, MA-SAM and MedSAM save them, for a small SAM; all names are written out here."""

import torch
from torch import nn

from fedpeft.config.backbones import Backbone
from fedpeft.config.run import make_run
from fedpeft.models.initial import build
from fedpeft.models.sam.parts import modeling

DIM, DEPTH, NECK, PATCH, PUBLISHED, PIXELS = 32, 2, 64, 8, 64, 32
SMALL = Backbone(
    "sam_small",
    image_size=PIXELS,
    published_image_size=PUBLISHED,
    patch=PATCH,
    dim=DIM,
    depth=DEPTH,
    heads=2,
    window=2,
    global_blocks=(1,),
    neck=NECK,
    decoder_heads=8,
    decoder_mlp=32,
    upscaling=(16, 8, 4, 2),
    rank=3,
    learning_rate=1e-3,
)
OF_LAYER = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
ATTENTIONS = [*(f"layers.{n}.{name}" for n in (0, 1) for name in OF_LAYER), "final_attn_token_to_image"]


def small(method="flap_sam", **fields):
    return make_run(method, "folder", "sam_small", **fields)


def values(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator) * 0.2


def sam(seed=0, depth=DEPTH):
    """The published form: four mask tokens, 4x decoder, at the size of the pretraining."""
    grid = PUBLISHED // PATCH
    encoder = modeling.ImageEncoderViT(
        img_size=PUBLISHED, patch_size=PATCH, embed_dim=DIM, depth=depth, num_heads=2, out_chans=NECK, use_rel_pos=True,
        window_size=2, global_attn_indexes=(1,),
    )  # fmt: skip
    prompt = modeling.PromptEncoder(NECK, (grid, grid), (PUBLISHED, PUBLISHED), 16)
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=NECK, mlp_dim=32, num_heads=8)
    decoder = modeling.MaskDecoder(transformer_dim=NECK, transformer=transformer, iou_head_hidden_dim=NECK)
    make = values(seed)
    shapes = modeling.Sam(encoder, prompt, decoder).state_dict()
    return {name: make(tensor.shape) for name, tensor in shapes.items() if not name.startswith("pixel_")}


def start(base, classes=2, **fields):
    """All tensors of a network that nothing has trained yet: the base's at 32 px, and a new output head."""
    return {
        name: tensor.clone()
        for name, tensor in build(small("full_ft", classes=classes, **fields), base).state_dict().items()
    }


def trained(tensors, prefixes, seed=1):
    make = values(seed)
    return {
        name: tensor + make(tensor.shape) if name.startswith(prefixes) else tensor for name, tensor in tensors.items()
    }


OUTPUT = tuple(f"mask_decoder.{name}." for name in ("output_upscaling", "output_hypernetworks_mlps", "mask_tokens"))


def flap_sam(base, classes=2, rank=3, experts=1, dora=False, prefixes=OUTPUT, seed=2):
    """The state dict that FLAP-SAM's Sam.save_parameters gives; ``experts`` 0 for a network without LoRA."""
    found, make = trained(start(base, classes), prefixes), values(seed)
    places = [(f"image_encoder.blocks.{n}.attn.", DIM, DIM) for n in range(DEPTH)]
    places += [
        (f"mask_decoder.transformer.{name}.", NECK, NECK if "self" in name else NECK // 2) for name in ATTENTIONS
    ]
    for attention, inputs, outputs in places:
        for part in "qv":
            for expert in range(experts):
                found[f"{attention}lora_w_a_{part}.{expert}.weight"] = make(rank, inputs)
                found[f"{attention}lora_w_b_{part}.{expert}.weight"] = make(outputs, rank)
            if dora:
                found[f"{attention}dora_m_{part}"] = make(1, inputs).abs()
        if experts > 1:
            found[f"{attention}lora_scale"] = make(experts)
    return found


def samed(base, classes=3, rank=4, seed=3):
    """What SAMed's LoRA_Sam.save_lora_parameters gives."""
    found, make = {}, values(seed)
    for number in range(2 * DEPTH):
        found[f"w_a_{number:03d}"] = nn.Parameter(make(rank, DIM))
    for number in range(2 * DEPTH):
        found[f"w_b_{number:03d}"] = nn.Parameter(make(DIM, rank))
    return found | _decoder(base, classes, "samed")


def ma_sam(base, classes=3, rank=4, seed=4):
    """What MA-SAM's Fact_tt_Sam.save_parameters gives."""
    found, make = {}, values(seed)
    for part in "qv":
        for number in range(DEPTH):
            found[f"{part}_FacTs_{number:03d}"] = nn.Parameter(make(rank, rank))
    found["image_encoder.FacTu.weight"], found["image_encoder.FacTv.weight"] = make(rank, DIM), make(DIM, rank)
    found |= _decoder(base, classes, "full_ft")
    for number in range(DEPTH):
        for ending in ("", "_2"):
            place = f"image_encoder.ImageEncoderViT.blocks.{number}.Block.adapter_"
            found |= {
                f"{place}linear_down{ending}.weight": make(DIM // 2, DIM),
                f"{place}linear_up{ending}.weight": make(DIM, DIM // 2),
                f"{place}conv{ending}.weight": make(DIM // 2, DIM // 2, 3, 1, 1),
                f"{place}conv{ending}.bias": make(DIM // 2),
                f"{place}norm{ending}.weight": make(DIM),
                f"{place}norm{ending}.bias": make(DIM),
            }
    return found


def _decoder(base, classes, method):
    """Prompt encoder and mask decoder after training; the frequencies of the positions are no parameter."""
    tensors = build(small(method, classes=classes), base).state_dict()
    tensors = {
        name: tensor for name, tensor in tensors.items() if name.startswith(("prompt_encoder.", "mask_decoder."))
    }
    fixed = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    return trained(tensors, ("prompt_encoder.", "mask_decoder.")) | {fixed: tensors[fixed]}


def by_hand(form, tensors):
    """A file's tensors under our names, one by one."""
    found = {}
    for name, tensor in tensors.items():
        found |= HANDS[form](name, tensor)
    if form == "ma_sam":
        cores = [tensors[f"{part}_FacTs_{n:03d}"] for n in range(DEPTH) for part in "qv"]
        found["image_encoder.fact.S"] = torch.stack(cores)
    return found


def _flap_sam(name, tensor):
    if ".lora_w_" in name:
        attention, rest = name.split("lora_w_")
        leaf, part, expert = rest[0].upper(), rest[2], rest.split(".")[1]
        # One expert stands alone, several have numbers.
        return {f"{_place(attention, part)}.{number}{leaf}": tensor for number in ("", f"{expert}.")}
    if ".dora_m_" in name:
        return {f"{_place(*name.split('dora_m_'))}.magnitude": tensor[0]}
    return {name.replace("lora_scale", "gate.theta"): tensor}


def _place(attention, part):
    return attention + (f"qkv.lora.{part}" if attention.startswith("image_encoder") else f"{part}_proj.lora")


def _samed(name, tensor):
    if not name.startswith("w_"):
        return {name: tensor}
    _, kind, number = name.split("_")
    return {f"image_encoder.blocks.{int(number) // 2}.attn.qkv.lora.{'qv'[int(number) % 2]}.{kind.upper()}": tensor}


PARTS = {"linear_down": "down", "linear_up": "up", "conv": "conv", "norm": "norm"}


def _ma_sam(name, tensor):
    if "FacTs" in name:
        return {}
    if "FacT" in name:
        return {f"image_encoder.fact.{name.split('.')[1][-1].upper()}": tensor}
    if ".adapter_" not in name:
        return {name: tensor}
    block, (part, leaf) = name.split(".")[3], name.split("adapter_")[1].split(".")
    where = "mlp" if part.endswith("_2") else "attn"
    return {f"image_encoder.blocks.{block}.slices.{where}.{PARTS[part.removesuffix('_2')]}.{leaf}": tensor}


HANDS = {"flap_sam": _flap_sam, "samed": _samed, "ma_sam": _ma_sam, "medsam": lambda name, tensor: {name: tensor}}

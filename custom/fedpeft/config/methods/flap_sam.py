"""The methods that the FLAP-SAM paper compares."""

from fedpeft.config.adapters import AdapterOptions, DoRA, FacTTensorTrain, FacTTucker, LoRA, MoLE, RandomLoRA
from fedpeft.config.methods.entry import (
    BOTH,
    ENCODER_ATTENTION,
    HEAD,
    LORA,
    OUTPUT_LAYERS,
    Adapter,
    Method,
    encoder_qv,
    register_methods,
)

DECODER_ATTENTION = "mask_decoder.transformer.*attn*_proj.*"
DECODER = "mask_decoder.*"
PROMPT_ENCODER = "prompt_encoder.*"
MAGNITUDES = "*.lora.*magnitude"
LORA_FACTORS = "*.lora.*[AB]"
GATES = "*.gate.theta"
FACT = "image_encoder.fact.*"
SLICE_MIXERS = "image_encoder.blocks.*.slices.*"


def _everywhere(options: AdapterOptions) -> tuple[Adapter, ...]:
    """Adapters on q and v of every attention of encoder and decoder (FLAP-SAM, section 2)."""
    return (encoder_qv(options), Adapter(options, "mask_decoder.transformer.*.[qv]_proj"))


LORA_EVERYWHERE = _everywhere(LoRA())
RANDOM_EVERYWHERE = _everywhere(RandomLoRA())
SLICES = Adapter("slices", "image_encoder.blocks.*")

register_methods(
    Method(
        "flap_sam",
        "FLAP-SAM",
        (LORA, *OUTPUT_LAYERS),
        adapters=LORA_EVERYWHERE,
        note="LoRA on q, v of encoder and decoder + upscaling, hyper-networks, mask tokens",
    ),
    Method("full_ft", "FullFT", ("*",), rate=0.15, tasks=BOTH, note="every parameter"),
    Method(
        "attn_ft",
        "AttnFT",
        (ENCODER_ATTENTION, DECODER_ATTENTION, HEAD),
        rate=0.25,
        tasks=BOTH,
        note="attention of encoder (with relative positions) and decoder, nothing else: the paper's one-class count; "
        "for classification the head as well",
    ),
    Method(
        "attn_ft_head",
        "AttnFT + output head",
        (ENCODER_ATTENTION, DECODER_ATTENTION, *OUTPUT_LAYERS),
        rate=0.25,
        note="attn_ft with upscaling, hyper-networks, mask tokens, as in the code of the FLAP-SAM paper's authors",
    ),
    Method("dec_ft", "DecFT", (DECODER,), rate=0.5, note="the whole mask decoder"),
    Method("pdec_ft", "PDecFT", OUTPUT_LAYERS, note="upscaling, hyper-networks, mask tokens"),
    Method(
        "lora_ft",
        "LoRAFT",
        (LORA,),
        adapters=LORA_EVERYWHERE,
        note="LoRA alone; the new output head keeps its random start",
    ),
    Method(
        "lora_dec_ft",
        "LoRADecFT (SAMed)",
        (LORA, DECODER),
        adapters=LORA_EVERYWHERE,
        rate=0.5,
        note="LoRA + the whole mask decoder",
    ),
    # The same three as the code of the paper's authors starts them.
    Method(
        "flap_sam_random_b",
        "FLAP-SAM, random B",
        (LORA, *OUTPUT_LAYERS),
        adapters=RANDOM_EVERYWHERE,
        note="flap_sam whose B starts at random, as in the code of the FLAP-SAM paper's authors",
    ),
    Method(
        "lora_ft_random_b",
        "LoRAFT, random B",
        (LORA,),
        adapters=RANDOM_EVERYWHERE,
        note="lora_ft whose B starts at random, as in the code of the FLAP-SAM paper's authors",
    ),
    Method(
        "lora_dec_ft_random_b",
        "LoRADecFT, random B",
        (LORA, DECODER),
        adapters=RANDOM_EVERYWHERE,
        rate=0.5,
        note="lora_dec_ft whose B starts at random, as in the code of the FLAP-SAM paper's authors",
    ),
    # Zhang and Liu 2023 as they published it; the FLAP-SAM paper's method of that name is lora_dec_ft.
    Method(
        "samed",
        "SAMed proper",
        (LORA, DECODER, PROMPT_ENCODER),
        adapters=(encoder_qv(LoRA(rank=4)),),
        rate=0.5,
        image_size=512,
        stages=2,
        note="LoRA on q, v of the encoder + SAM's own mask decoder, prompt encoder",
    ),
    Method(
        "dora",
        "DoRA",
        (LORA, *OUTPUT_LAYERS),
        adapters=_everywhere(DoRA()),
        rules=((MAGNITUDES, "mean"), (LORA, "product"), ("*", "mean")),
        note="flap_sam with weight-decomposed LoRA: a magnitude for each input feature",
    ),
    Method(
        "dora_frozen",
        "DoRA, frozen magnitudes",
        (LORA_FACTORS, *OUTPUT_LAYERS),
        adapters=_everywhere(DoRA()),
        note="dora whose magnitudes keep their start, as in the code of the FLAP-SAM paper's authors",
    ),
    Method(
        "mole",
        "MoLE",
        (LORA, GATES, *OUTPUT_LAYERS),
        adapters=_everywhere(MoLE()),
        note="flap_sam with three LoRA experts and a gate for each attention",
    ),
    Method(
        "ma_sam",
        "MA-SAM",
        (FACT, SLICE_MIXERS, DECODER, PROMPT_ENCODER),
        adapters=(encoder_qv(FacTTensorTrain()), SLICES),
        rules=((FACT, "tensor_train"), ("*", "mean")),
        rate=0.5,
        mixes_slices=True,
        note="FacT (tensor train) on q, v of the encoder, 3-D adapters + mask decoder, prompt encoder",
    ),
    Method(
        "ma_sam_tk",
        "MA-SAM, FacT-TK",
        (FACT, SLICE_MIXERS, DECODER, PROMPT_ENCODER),
        adapters=(encoder_qv(FacTTucker()), SLICES),
        rules=((FACT, "tucker"), ("*", "mean")),
        rate=0.5,
        mixes_slices=True,
        note="the same with FacT in Tucker form",
    ),
)

"""Federated fine-tuning of Vision Transformers (Alkhunaizi et al. 2024); each method trains the new head as well."""

from fedpeft.config.adapters import (
    BlockSelection,
    Bottlenecks,
    FirstPrompts,
    LoRA,
    LowRankPrompts,
    Prompts,
)
from fedpeft.config.methods.entry import (
    CLASSIFICATION,
    ENCODER_ATTENTION,
    HEAD,
    LORA,
    Adapter,
    Method,
    encoder_qv,
    register_methods,
)

BIASES = "*.bias"
NORMS = "image_encoder.*norm*"
PROMPTS = "*.prompts.*"
PROMPT_FACTORS = "*.prompts.[AB]"
BOTTLENECKS = "*.bottlenecks.*"
BLOCKS = "image_encoder.blocks.*"
DEEP_PROMPTS = Adapter(Prompts(), BLOCKS)

register_methods(
    Method("linear_probe", "Linear probe", (HEAD,), tasks=CLASSIFICATION, note="the head alone"),
    Method("bitfit", "Bias tuning", (BIASES, HEAD), tasks=CLASSIFICATION, note="every bias + head"),
    Method(
        "layernorm",
        "LayerNorm tuning",
        (NORMS, HEAD),
        tasks=CLASSIFICATION,
        note="scales and shifts of the encoder's layer normalisations + head",
    ),
    Method(
        "sba",
        "SBA",
        (ENCODER_ATTENTION, HEAD),
        rate=0.25,
        selects=ENCODER_ATTENTION,
        selection=BlockSelection(),
        tasks=CLASSIFICATION,
        note="attention of random blocks, others each round, + head; only these are exchanged",
    ),
    Method(
        "vpt_shallow",
        "VPT-shallow",
        (PROMPTS, HEAD),
        adapters=(Adapter(FirstPrompts(), "image_encoder"),),
        tasks=CLASSIFICATION,
        note="prompt tokens before the first block + head",
    ),
    Method(
        "vpt_deep",
        "VPT-deep",
        (PROMPTS, HEAD),
        adapters=(DEEP_PROMPTS,),
        tasks=CLASSIFICATION,
        note="prompt tokens of their own in every block + head",
    ),
    Method(
        "dvpt",
        "DVPT",
        (PROMPTS, HEAD),
        adapters=(Adapter(LowRankPrompts(rank=4), BLOCKS),),
        rules=((PROMPT_FACTORS, "product"), ("*", "mean")),
        tasks=CLASSIFICATION,
        note="every block's prompt tokens as a low-rank product + head",
    ),
    Method(
        "lora",
        "LoRA",
        (LORA, HEAD),
        adapters=(encoder_qv(LoRA()),),
        tasks=CLASSIFICATION,
        note="LoRA on q, v of the encoder + head",
    ),
    Method(
        "lora_vpt",
        "LoRA + VPT",
        (LORA, PROMPTS, HEAD),
        adapters=(encoder_qv(LoRA()), DEEP_PROMPTS),
        tasks=CLASSIFICATION,
        note="LoRA on q, v of the encoder, prompt tokens in every block + head",
    ),
    Method(
        "adapters",
        "Adapters",
        (BOTTLENECKS, HEAD),
        adapters=(Adapter(Bottlenecks(), BLOCKS),),
        tasks=CLASSIFICATION,
        note="bottlenecks after attention and MLP of every block + head",
    ),
    Method(
        "sba_vpt",
        "SBA + VPT",
        (ENCODER_ATTENTION, PROMPTS, HEAD),
        adapters=(DEEP_PROMPTS,),
        rate=0.25,
        selects=ENCODER_ATTENTION,
        selection=BlockSelection(),
        tasks=CLASSIFICATION,
        note="sba with prompt tokens in every block, which every round exchanges",
    ),
)

"""Methods of other papers, on the image encoder of SAM and of Vision Transformers alike."""

from fedpeft.config.adapters import LoRA
from fedpeft.config.methods.entry import BOTH, HEAD, LORA, OUTPUT_LAYERS, Adapter, Method, encoder_qv, register_methods

LORA_B = "*.lora.*B"
SCALES = "*.ia3.*"

register_methods(
    Method(
        "ia3",
        "IA3",
        (SCALES, *OUTPUT_LAYERS, HEAD),
        adapters=(Adapter("ia3", "image_encoder.blocks.*"),),
        tasks=BOTH,
        note="learned scales of keys, values and MLP activations of the encoder (Liu et al. 2022) + the output layers",
    ),
    Method(
        "lora_plus",
        "LoRA+",
        (LORA, *OUTPUT_LAYERS, HEAD),
        adapters=(encoder_qv(LoRA()),),
        rates=((LORA_B, 16.0),),
        tasks=BOTH,
        note="LoRA on q, v of the encoder, B learning 16 times as fast as A (Hayou et al. 2024) + the output layers",
    ),
    Method(
        "lora_mlp",
        "LoRA, attention and MLP",
        (LORA, *OUTPUT_LAYERS, HEAD),
        adapters=(encoder_qv(LoRA()), Adapter(LoRA(), "image_encoder.blocks.*.mlp.lin[12]")),
        tasks=BOTH,
        note="LoRA on q, v and both MLP layers of the encoder + the output layers",
    ),
)

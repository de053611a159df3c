"""Fine-tuning methods: where adapters go, which tensors train and when, how each is averaged.

A method is a row. Nothing in the code branches on a method's name: to add one, add a row here and, if its
mathematics is new, one adapter module (``model/adapters.py``) or one averaging rule (``algebra/average.py``).
Tensors are named by their parameter path in the model; patterns are ``fnmatch`` globs in which ``*`` crosses dots.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from fedpeft.common.registry import find

ENCODER_ATTENTION = "image_encoder.blocks.*.attn.*"
DECODER_ATTENTION = "mask_decoder.transformer.*attn*_proj.*"
DECODER = "mask_decoder.*"
# The output layers of FLAP-SAM, section 2: UP and HYP. The paper's counts include the mask tokens as well.
OUTPUT_LAYERS = (
    "mask_decoder.output_upscaling.*",
    "mask_decoder.output_hypernetworks_mlps.*",
    "mask_decoder.mask_tokens.*",
)
LORA = "*.lora.*"
MAGNITUDES = "*.lora.*magnitude"
GATES = "*.gate.theta"
FACT = "image_encoder.fact.*"
SLICE_MIXERS = "image_encoder.blocks.*.slices.*"
PROMPT_ENCODER = "prompt_encoder.*"
# Classification: a head of its own, which no foundation model has.
HEAD = "head.*"
BIASES = "*.bias"
NORMS = ("image_encoder.*norm*",)
PROMPTS = "*.prompts.*"
PROMPT_FACTORS = "*.prompts.[AB]"
BOTTLENECKS = "*.bottlenecks.*"


# Kinds of adapters that have no rank.
RANKLESS = ("slices", "prompts", "first_prompts")


@dataclass(frozen=True)
class Adapter:
    """One kind of adapter on every layer whose module path matches ``layer``.

    Attributes:
        kind: key of ``fedpeft.models.adapters.registry.ADAPTERS``, which says what layers it can adapt.
        layer: glob of module paths.
        slots: for a fused projection, the parts of its output that get an adapter, out of ``of``; empty for a
            plain layer, which gets one adapter for its whole output.
        of: the parts of the fused output in their order.
    """

    kind: str
    layer: str
    slots: tuple[str, ...] = ()
    of: tuple[str, ...] = ()


def _encoder(kind: str) -> Adapter:
    return Adapter(kind, "image_encoder.blocks.*.attn.qkv", slots=("q", "v"), of=("q", "k", "v"))


def _everywhere(kind: str) -> tuple[Adapter, ...]:
    """On q and v of every attention of encoder and decoder (FLAP-SAM, section 2)."""
    return (_encoder(kind), Adapter(kind, "mask_decoder.transformer.*.[qv]_proj"))


LORA_ADAPTERS = _everywhere("lora")
DEEP_PROMPTS = Adapter("prompts", "image_encoder.blocks.*")
BOTH = ("segmentation", "classification")
CLASSIFICATION = ("classification",)


@dataclass(frozen=True)
class Method:
    """A row of the methods table.

    Attributes:
        name: what commands and jobs call it.
        title: what its paper calls it.
        trains: globs of the parameter paths that train and travel; everything else is frozen.
        adapters: adapters that are put into the backbone; none means the backbone as it is.
        rules: (glob, averaging rule) pairs; the first match decides (keys of ``fedpeft.algebra.average.RULES``).
        rate: factor on the backbone's learning rate: full-size tensors take smaller steps than adapters.
        rank: default adapter rank; 0 means the backbone's.
        side: default input side in pixels, at most the side at which the backbone was trained; 0 means the backbone's.
        stages: how many of the backbone's upscaling stages the mask decoder has, a factor 2 each; 0 means all. What
            is missing up to the input's resolution is interpolated bilinearly, as SAM does with its own 4x decoder.
        mixes_slices: whether a slice's mask depends on its neighbours in the stack; such a row predicts overlapping
            stacks, ``stride`` apart, and averages their probabilities.
        note: the rule in a sentence, shown by ``fedpeft methods``.
        draws: glob of trained parameters of blocks, ``...blocks.<number>...``, of which each round trains and exchanges
            a random subset of the blocks alone; "" if every round has them all.
        blocks: how many blocks a round draws by default.
        prompts: default number of prompt tokens; 0 for a row without.
        tasks: what it can be trained for.
    """

    name: str
    title: str
    trains: tuple[str, ...]
    note: str
    adapters: tuple[Adapter, ...] = ()
    rules: tuple[tuple[str, str], ...] = ((LORA, "product"), ("*", "mean"))
    rate: float = 1.0
    rank: int = 0
    side: int = 0
    stages: int = 0
    mixes_slices: bool = False
    selects: str = ""
    blocks: int = 0
    prompts: int = 0
    tasks: tuple[str, ...] = ("segmentation",)

    @property
    def ranked(self) -> bool:
        """Whether the row has adapters of some rank."""
        return any(adapter.kind not in RANKLESS for adapter in self.adapters)

    def trains_tensor(self, path: str) -> bool:
        """Whether the parameter at ``path`` trains (and travels)."""
        return any(fnmatchcase(path, pattern) for pattern in self.trains)

    def selects_tensor(self, path: str) -> bool:
        """Whether the parameter at ``path`` belongs to the blocks of which rounds draw some."""
        return bool(self.selects) and fnmatchcase(path, self.selects)

    def rule_of(self, path: str) -> str:
        """Name of the averaging rule of the parameter at ``path``.

        Raises:
            ValueError: no pattern of the row matches.
        """
        for pattern, rule in self.rules:
            if fnmatchcase(path, pattern):
                return rule
        raise ValueError(f"method {self.name!r} has no averaging rule for {path!r}; add a pattern to the row's rules")


_ROWS = (
    Method(
        "flap_sam",
        "FLAP-SAM",
        (LORA, *OUTPUT_LAYERS),
        adapters=LORA_ADAPTERS,
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
    Method("dec_ft", "DecFT", (DECODER,), rate=0.5, note="the whole mask decoder"),
    Method("pdec_ft", "PDecFT", OUTPUT_LAYERS, note="upscaling, hyper-networks, mask tokens"),
    Method(
        "lora_ft",
        "LoRAFT",
        (LORA,),
        adapters=LORA_ADAPTERS,
        note="LoRA alone; the new output head stays as it was drawn",
    ),
    Method(
        "lora_dec_ft",
        "LoRADecFT (SAMed)",
        (LORA, DECODER),
        adapters=LORA_ADAPTERS,
        rate=0.5,
        note="LoRA + the whole mask decoder",
    ),
    # Zhang and Liu 2023 as they published it; the paper's row of that name is lora_dec_ft.
    Method(
        "samed",
        "SAMed proper",
        (LORA, DECODER, PROMPT_ENCODER),
        adapters=(_encoder("lora"),),
        rate=0.5,
        rank=4,
        side=512,
        stages=2,
        note="LoRA on q, v of the encoder + SAM's own mask decoder, prompt encoder",
    ),
    Method(
        "dora",
        "DoRA",
        (LORA, *OUTPUT_LAYERS),
        adapters=_everywhere("dora"),
        rules=((MAGNITUDES, "mean"), (LORA, "product"), ("*", "mean")),
        note="flap_sam with weight-decomposed LoRA: a magnitude for each input feature",
    ),
    Method(
        "mole",
        "MoLE",
        (LORA, GATES, *OUTPUT_LAYERS),
        adapters=_everywhere("mole"),
        note="flap_sam with three LoRA experts and a gate for each attention",
    ),
    Method(
        "ma_sam",
        "MA-SAM",
        (FACT, SLICE_MIXERS, DECODER, PROMPT_ENCODER),
        rate=0.5,
        mixes_slices=True,
        adapters=(_encoder("fact_tt"), Adapter("slices", "image_encoder.blocks.*")),
        rules=((FACT, "tensor_train"), ("*", "mean")),
        note="FacT (tensor train) on q, v of the encoder, 3-D adapters + mask decoder, prompt encoder",
    ),
    Method(
        "ma_sam_tk",
        "MA-SAM, FacT-TK",
        (FACT, SLICE_MIXERS, DECODER, PROMPT_ENCODER),
        rate=0.5,
        mixes_slices=True,
        adapters=(_encoder("fact_tk"), Adapter("slices", "image_encoder.blocks.*")),
        rules=((FACT, "tucker"), ("*", "mean")),
        note="the same with FacT in Tucker form",
    ),
    # Alkhunaizi et al. 2024 (federated PEFT of ViTs); what follows trains the new head as well.
    Method("linear_probe", "Linear probe", (HEAD,), tasks=CLASSIFICATION, note="the head alone"),
    Method("bitfit", "Bias tuning", (BIASES, HEAD), tasks=CLASSIFICATION, note="every bias + head"),
    Method(
        "layernorm",
        "LayerNorm tuning",
        (*NORMS, HEAD),
        tasks=CLASSIFICATION,
        note="scales and shifts of the encoder's layer normalisations + head",
    ),
    Method(
        "sba",
        "SBA",
        (ENCODER_ATTENTION, HEAD),
        rate=0.25,
        selects=ENCODER_ATTENTION,
        blocks=3,
        tasks=CLASSIFICATION,
        note="attention of blocks drawn anew each round + head; only these are exchanged",
    ),
    Method(
        "vpt_shallow",
        "VPT-shallow",
        (PROMPTS, HEAD),
        adapters=(Adapter("first_prompts", "image_encoder"),),
        prompts=10,
        tasks=CLASSIFICATION,
        note="prompt tokens before the first block + head",
    ),
    Method(
        "vpt_deep",
        "VPT-deep",
        (PROMPTS, HEAD),
        adapters=(DEEP_PROMPTS,),
        prompts=10,
        tasks=CLASSIFICATION,
        note="prompt tokens of their own in every block + head",
    ),
    Method(
        "dvpt",
        "DVPT",
        (PROMPTS, HEAD),
        adapters=(Adapter("low_rank_prompts", "image_encoder.blocks.*"),),
        rules=((PROMPT_FACTORS, "product"), ("*", "mean")),
        rank=4,
        prompts=10,
        tasks=CLASSIFICATION,
        note="every block's prompt tokens as a low-rank product + head",
    ),
    Method(
        "lora",
        "LoRA",
        (LORA, HEAD),
        adapters=(_encoder("lora"),),
        tasks=CLASSIFICATION,
        note="LoRA on q, v of the encoder + head",
    ),
    Method(
        "lora_vpt",
        "LoRA + VPT",
        (LORA, PROMPTS, HEAD),
        adapters=(_encoder("lora"), DEEP_PROMPTS),
        prompts=10,
        tasks=CLASSIFICATION,
        note="LoRA on q, v of the encoder, prompt tokens in every block + head",
    ),
    Method(
        "adapters",
        "Adapters",
        (BOTTLENECKS, HEAD),
        adapters=(Adapter("bottlenecks", "image_encoder.blocks.*"),),
        tasks=CLASSIFICATION,
        note="bottlenecks after attention and MLP of every block (width: the rank) + head",
    ),
    Method(
        "sba_vpt",
        "SBA + VPT",
        (ENCODER_ATTENTION, PROMPTS, HEAD),
        adapters=(DEEP_PROMPTS,),
        rate=0.25,
        selects=ENCODER_ATTENTION,
        blocks=3,
        prompts=10,
        tasks=CLASSIFICATION,
        note="sba with prompt tokens in every block, which every round exchanges",
    ),
)

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}


def method(name: str) -> Method:
    """The row called ``name``; ValueError if there is none."""
    return find(METHODS, name, "method")

"""Named choices of ``fedpeft compare``: what the FLAP-SAM paper's ablations vary, and whole training recipes.

A preset gives defaults; explicit options take precedence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedpeft.common.registry import Registry


@dataclass(frozen=True)
class Ablation:
    """What an ablation compares.

    Attributes:
        name: what the command calls it.
        note: what it shows, for people.
        methods: names of methods.
        settings: of "local", "federated", "centralized".
        ranks: adapter ranks; empty means every method's own.
    """

    name: str
    note: str
    methods: tuple[str, ...]
    settings: tuple[str, ...]
    ranks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """How to train: a complete, named set of fields of a run.

    Attributes:
        name: what the command calls it.
        note: what it is, for people.
        fields: fields of a run by name, the same names in every recipe, so that nothing of another recipe stays behind;
            None is a field's default, for ``learning_rate`` each method's own. Weights that are "published" become
            "slices" where the data set has none (``study/plan/recipe.py``).
        variants: method -> the entry that takes its place, because it starts or trains otherwise here.
        methods: compared unless others are named; empty: the method of the data set's job.
        backbone: None: the one of the data set's job.
    """

    name: str
    note: str
    fields: Mapping[str, Any]
    variants: Mapping[str, str] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    backbone: str | None = None


ABLATIONS: Registry[Ablation] = Registry("ablation")
RECIPES: Registry[Recipe] = Registry("training recipe")


def register_ablations(*entries: Ablation) -> None:
    """Add ablations; ValueError if there is one of that name."""
    for entry in entries:
        ABLATIONS.register(entry.name, entry)


def register_recipes(*entries: Recipe) -> None:
    """Add recipes; ValueError if there is one of that name."""
    for entry in entries:
        RECIPES.register(entry.name, entry)


register_ablations(
    Ablation(
        "rank",
        "FLAP-SAM at ranks 4, 16, 32, federated (the paper's tables 2 left and D)",
        methods=("flap_sam",),
        settings=("federated",),
        ranks=(4, 16, 32),
    ),
    Ablation(
        "adapter",
        "LoRA, DoRA and MoLE in FLAP-SAM's places, federated (the paper's tables 2 right and E)",
        methods=("flap_sam", "dora", "mole"),
        settings=("federated",),
    ),
)

# What FLAP-SAM's, MA-SAM's and SAMed's published code have in common. Its weight decay is on every tensor, and the rate
# follows a site's own count of steps. All stacks train: their share is limited by a number that no site reaches.
_CODE: dict[str, Any] = {
    "local_epochs": 1.0,
    "batch": 24,
    "stack": 5,
    "stride": 1,
    "background_ratio": 1e6,
    "augmentation": "ma_sam",
    "site_weights": None,
    "codec": "float32",
    "base_learning_rate": None,
    "warmup": None,
    "warmup_steps": 250,
    "weight_decay": 0.1,
    "weight_decay_on": "all",
    "dice_weight": 0.8,
    "loss_size": "input",
    "image_size": None,
}

# FLAP-SAM's code: the schedule would reach zero after 200 epochs, and training stops after 100.
_AUTHORS = _CODE | {
    "preprocessing": "authors",
    "stack_ends": "repeat",
    "rounds": 100,
    "site_weighting": "published",
    "learning_rate": 8e-4,
    "lr_schedule": "power7",
    "decay_epochs": 200.0,
}

# SAMed's code: each slice once, and the loss on the logits of SAM's own 4x decoder. It is not federated; where it is
# here, a site weighs by its training slices.
_SAMED = _CODE | {
    "preprocessing": "samed",
    "stack_ends": "inside",
    "augmentation": "samed",
    "rounds": 160,
    "stack": 1,
    "site_weighting": "slices",
    "learning_rate": 5e-3,
    "lr_schedule": "poly",
    "decay_epochs": 200.0,
    "loss_size": "decoder",
    "image_size": 512,
}

register_recipes(
    # The text gives batch, optimiser (Adam, so no weight decay), loss, equal weights (equation 2), overlapping stacks
    # of 5 and the start of A and B. It is silent on rounds, learning rate, schedule, warm-up and the stacks at a
    # volume's ends, which follow the authors' code.
    Recipe(
        "paper",
        "the FLAP-SAM paper's text: sites weighted equally, all overlapping stacks, batch 32, Adam; and where it is "
        "silent, its authors' code: 100 rounds of one epoch, learning rate 8e-4 for every method, warm-up of 250 "
        "steps, then (1 - t)^7 over 200 epochs, float32 on the wire",
        _AUTHORS
        | {
            "batch": 32,
            "preprocessing": "paper",
            "site_weighting": "uniform",
            "weight_decay": 0.0,
            "weight_decay_on": "matrices",
        },
    ),
    Recipe(
        "authors",
        "the code of the FLAP-SAM paper's authors in everything: as paper, but batch 24, AdamW with weight decay 0.1 "
        "on every tensor, a random B, and their constants as weights of the sites (training slices where they give "
        "none)",
        _AUTHORS,
        variants={
            "flap_sam": "flap_sam_random_b",
            "lora_ft": "lora_ft_random_b",
            "lora_dec_ft": "lora_dec_ft_random_b",
            "attn_ft": "attn_ft_head",
            "dora": "dora_frozen",
        },
    ),
    Recipe(
        "ma_sam",
        "MA-SAM's code: ViT-H, 512 px, stacks of 5, batch 24, learning rate 8e-4, (1 - t)^7 over 400 epochs, stopped "
        "after 300",
        _AUTHORS
        | {
            "preprocessing": "ma_sam",
            "rounds": 300,
            "site_weighting": "slices",
            "decay_epochs": 400.0,
            "image_size": 512,
        },
        methods=("ma_sam",),
        backbone="sam_vit_h",
    ),
    Recipe(
        "samed",
        "SAMed's code: ViT-B, 512 px, single slices, batch 24, learning rate 5e-3, (1 - t)^0.9 over 200 epochs, "
        "stopped after 160, loss on the decoder's own logits",
        _SAMED,
        methods=("samed",),
        backbone="sam_vit_b",
    ),
    Recipe(
        "samed_h",
        "SAMed_h, by the command of its guide: samed with ViT-H and (1 - t)^7 over 400 epochs, stopped after 300",
        _SAMED | {"rounds": 300, "lr_schedule": "power7", "decay_epochs": 400.0},
        methods=("samed",),
        backbone="sam_vit_h",
    ),
    Recipe(
        "efficient",
        "what we found better for its cost: sites weighted by cases, 20 rounds of half an epoch, each slice once, "
        "batch 2, the backbone's learning rate with each method's factor, cosine, bfloat16 on the wire",
        {
            "rounds": 20,
            "local_epochs": 0.5,
            "batch": 2,
            "stack": 5,
            "stride": 5,
            "background_ratio": 0.5,
            "preprocessing": "standard",
            "stack_ends": "inside",
            "augmentation": "standard",
            "site_weighting": "cases",
            "site_weights": None,
            "codec": "bfloat16",
            "lr_schedule": "cosine",
            "learning_rate": None,
            "base_learning_rate": None,
            "warmup": None,
            "warmup_steps": None,
            "decay_epochs": None,
            "weight_decay": 0.1,
            "weight_decay_on": "matrices",
            "dice_weight": 0.8,
            "loss_size": "input",
            "image_size": None,
        },
    ),
)

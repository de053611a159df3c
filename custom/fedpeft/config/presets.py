"""Named choices of ``fedpeft compare``: what the FLAP-SAM paper's ablations vary, and whole training recipes.

A preset gives defaults; explicit options take precedence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
        fields: fields of a run by name. Without ``learning_rate``, each method keeps its own.
    """

    name: str
    note: str
    fields: Mapping[str, Any]


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

register_recipes(
    # Where the paper's text gives no value (rounds, learning rate, schedule), this follows its published code.
    Recipe(
        "paper",
        "the FLAP-SAM paper's: sites weighted equally, 100 rounds of one epoch over all overlapping stacks, batch 32, "
        "learning rate 8e-4 for every method, schedule (1 - t)^7, float32 on the wire",
        {
            "rounds": 100,
            "local_epochs": 1.0,
            "batch": 32,
            "stride": 1,
            "background_ratio": 100.0,
            "site_weighting": "uniform",
            "codec": "float32",
            "lr_schedule": "power7",
            "learning_rate": 8e-4,
        },
    ),
    Recipe(
        "efficient",
        "what we found better for its cost: sites weighted by cases, 20 rounds of half an epoch, each slice once, "
        "batch 2, the backbone's learning rate with each method's factor, cosine, bfloat16 on the wire",
        {
            "rounds": 20,
            "local_epochs": 0.5,
            "batch": 2,
            "stride": 5,
            "background_ratio": 0.5,
            "site_weighting": "cases",
            "codec": "bfloat16",
            "lr_schedule": "cosine",
            "learning_rate": None,
            "base_learning_rate": None,
        },
    ),
)

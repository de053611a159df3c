"""Named choices of ``fedpeft compare``: what the FLAP-SAM paper's ablations vary, and whole training recipes.

A preset is a row; nothing branches on its name. It gives defaults, what is asked for explicitly goes before it.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Ablation:
    """What an ablation compares.

    Attributes:
        name: what the command calls it.
        note: what it shows, for people.
        methods: names of rows.
        settings: of "local", "federated", "centralized".
        ranks: adapter ranks; none means every method's own.
    """

    name: str
    note: str
    methods: tuple[str, ...]
    settings: tuple[str, ...]
    ranks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Training:
    """A training recipe: the fields of a run that decide how long and how it trains and what it sends.

    Attributes:
        name: what the command calls it.
        note: what it is, for people.
        rounds, local_epochs, batch, stride, negatives, weights, codec, decay: as in ``Run``.
        learning_rate: learning rate; 0 means the backbone's.
        one_rate: whether every method takes that learning rate as it is; else each scales it by its row's factor.
    """

    name: str
    note: str
    rounds: int
    local_epochs: float
    batch: int
    stride: int
    negatives: float
    weights: str
    codec: str
    decay: str
    learning_rate: float
    one_rate: bool

    def fields(self) -> dict[str, Any]:
        """The fields of a run that it sets for every method alike, the learning rate apart."""
        return {key: value for key, value in asdict(self).items() if key not in _NOT_FIELDS}


_NOT_FIELDS = ("name", "note", "learning_rate", "one_rate")

_ABLATIONS = (
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

_TRAININGS = (
    # Where the paper's text is silent (rounds, learning rate, decay), what its published code does.
    Training(
        "paper",
        "the FLAP-SAM paper's: sites weighted alike, 100 rounds of one epoch over all overlapping stacks, batch 32, "
        "learning rate 8e-4 for every method, decay (1 - t)^7, float32 on the wire",
        rounds=100,
        local_epochs=1.0,
        batch=32,
        stride=1,
        negatives=100.0,
        weights="uniform",
        codec="float32",
        decay="power7",
        learning_rate=8e-4,
        one_rate=True,
    ),
    Training(
        "efficient",
        "what we found better for its cost: sites weighted by cases, 20 rounds of half an epoch, each slice once, "
        "batch 2, the backbone's learning rate with each method's factor, cosine, bfloat16 on the wire",
        rounds=20,
        local_epochs=0.5,
        batch=2,
        stride=5,
        negatives=0.5,
        weights="cases",
        codec="bfloat16",
        decay="cosine",
        learning_rate=0.0,
        one_rate=False,
    ),
)

ABLATIONS: dict[str, Ablation] = {row.name: row for row in _ABLATIONS}
TRAININGS: dict[str, Training] = {row.name: row for row in _TRAININGS}

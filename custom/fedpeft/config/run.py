"""A run: everything that determines a training except data and checkpoint, which the sites have.

The same record is rendered into a FLARE job, kept in ``run.json`` and read by every room, so that local, centralized
and federated training cannot drift apart. It names no path and no machine.
"""

import hashlib
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fedpeft.config.backbones import Backbone, backbone
from fedpeft.config.datasets import DATASETS
from fedpeft.config.methods import Method, method
from fedpeft.config.tasks import Task, task

CODECS = ("float32", "bfloat16", "int8")
WEIGHTS = ("cases", "uniform")
DECAYS = ("cosine", "power7")
LOSSES = ("balanced", "plain", "focal")
INITIALS = ("generic", "medical", "random")
PRECISIONS = ("float32", "bfloat16", "auto")
SETTINGS = ("local", "federated", "centralized")


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        method, dataset, backbone: names of rows.
        classes: classes to tell apart; in segmentation besides the background, which is output 0.
        labels: names of the classes in the order of their indices; sites must have the same. Empty means the data set's
            own names where it has as many, else that names are not compared.
        rank: adapter rank; 0 means the method's default, or else the backbone's.
        side: input side in pixels; 0 means the method's default, or else the backbone's.
        seed: of the initial model, the order of the data and the augmentation.
        rounds: rounds of the federation; a local or centralized run has as many.
        local_epochs: passes over a site's training stacks in a round; a fraction takes that share of them, drawn anew
            each round, so that sites whose data differ are averaged before they drift apart.
        batch: stacks of ``stack`` neighbouring slices, or pictures, in a step.
        stack: slices in a stack (FLAP-SAM's N = 5); this and the next two are of segmentation.
        stride: slices between the starts of two stacks; 1 is the paper's, ``stack`` computes each slice once.
        negatives: stacks without foreground, as a share of those with it.
        learning_rate: 0 means backbone's rate times the method's factor.
        weight_decay: AdamW's, on tensors of two and more dimensions.
        warmup: share of the run with a linearly growing learning rate.
        decay: of the learning rate after the warm-up, to zero at the run's end: half a "cosine", or the paper's "power7",
            (1 - t)^7.
        dice_weight: segmentation's loss is (1 - dice_weight) CE + dice_weight Dice (FLAP-SAM: 0.2, 0.8).
        weights: how sites are weighted: by their number of training cases, or all alike (the paper's equation 2).
        codec: how tensors are encoded on the wire, both ways: "float32" exactly, "bfloat16" in 2 bytes a number, "int8"
            in 1 byte and a scale for every 128 numbers. What rounding keeps back is sent with later rounds.
        prompts: prompt tokens; 0 means the method's default, which is 0 for a row without.
        blocks: blocks that a round draws; 0 means the method's default, which is 0 for a row that draws none.
        initial: the foundation model to start from: the backbone's own weights ("generic"), others of the same shape
            that were trained on medical images ("medical"), or none ("random").
        loss: of classification: cross-entropy whose classes weigh alike at each site ("balanced") or as often as they
            occur ("plain"), or focal loss ("focal").
        patience: the run ends after this many rounds without a better mean of the sites' validation; 0: it never does.
        precision: of a step's and a prediction's products: "float32" exactly, "bfloat16" by autocast at every site, and
            a site whose processor has none refuses, or "auto": at each site bfloat16 if its processor computes it.
            Weights, loss, moments and all that travels are float32 whatever it is.
    """

    method: str
    dataset: str
    backbone: str = "sam_vit_b"
    classes: int = 1
    labels: tuple[str, ...] = ()
    rank: int = 0
    side: int = 0
    seed: int = 0
    rounds: int = 10
    local_epochs: float = 1.0
    batch: int = 4
    stack: int = 5
    stride: int = 5
    negatives: float = 0.5
    learning_rate: float = 0.0
    weight_decay: float = 0.1
    warmup: float = 0.05
    decay: str = "cosine"
    dice_weight: float = 0.8
    weights: str = "cases"
    codec: str = "float32"
    prompts: int = 0
    blocks: int = 0
    initial: str = "generic"
    loss: str = "balanced"
    patience: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Fill the defaults that belong to the rows, then check every value.

        Raises:
            ValueError: a value is unknown or out of range; the message names the field.
        """
        row, backbone_row = method(self.method), backbone(self.backbone)
        object.__setattr__(self, "labels", tuple(self.labels) or _names(self.dataset, self.classes))
        for name, value in _defaults(row, backbone_row).items():
            # A row without prompts or draws has none of them, whatever other rows of a comparison get.
            own = 0 if name in OF_THE_ROW and not value else getattr(self, name) or value
            object.__setattr__(self, name, own)
        object.__setattr__(self, "learning_rate", self.learning_rate or backbone_row.learning_rate * row.rate)
        least = 2 - self.task_row.background
        checks = (
            ("method", self.task in row.tasks, f"a method for {self.task}, which {self.method} is not"),
            ("backbone", self.task in backbone_row.tasks, f"a backbone for {self.task}, which {self.backbone} is not"),
            ("classes", self.classes >= least, f"at least {least}"),
            ("labels", len(self.labels) in (0, self.classes), f"{self.classes} names, one for each class, or none"),
            ("rank", self.rank >= 1, "at least 1"),
            (
                "side",
                self.side > 0 and self.side % backbone_row.patch == 0,
                f"a positive multiple of the patch side {backbone_row.patch} of {self.backbone}",
            ),
            ("rounds", self.rounds >= 1, "at least 1"),
            ("local_epochs", self.local_epochs > 0, "above 0"),
            ("batch", self.batch >= 1, "at least 1"),
            ("stack", self.stack >= 1, "at least 1"),
            ("stride", 1 <= self.stride <= self.stack, f"1 to stack ({self.stack})"),
            ("negatives", self.negatives >= 0, "0 or more"),
            ("learning_rate", self.learning_rate > 0, "positive"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("warmup", 0 <= self.warmup < 1, "0 to below 1"),
            ("decay", self.decay in DECAYS, f"one of {', '.join(DECAYS)}"),
            ("dice_weight", 0 <= self.dice_weight <= 1, "0 to 1"),
            ("weights", self.weights in WEIGHTS, f"one of {', '.join(WEIGHTS)}"),
            ("codec", self.codec in CODECS, f"one of {', '.join(CODECS)}"),
            ("prompts", self.prompts >= 0, "0 or more"),
            ("blocks", 0 <= self.blocks <= backbone_row.depth, f"0 to the {backbone_row.depth} of {self.backbone}"),
            ("initial", self.initial in INITIALS, f"one of {', '.join(INITIALS)}"),
            ("loss", self.loss in LOSSES, f"one of {', '.join(LOSSES)}"),
            ("patience", self.patience >= 0, "0 or more"),
            ("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
        )
        for name, valid, expected in checks:
            if not valid:
                raise ValueError(f"run: {name} is {getattr(self, name)!r}, expected {expected}")

    @property
    def method_row(self) -> Method:
        """The method's row."""
        return method(self.method)

    @property
    def backbone_row(self) -> Backbone:
        """The backbone's row."""
        return backbone(self.backbone)

    @property
    def task(self) -> str:
        """Name of the task: the data set's, or for data that is no row the method's first."""
        row = DATASETS.get(self.dataset)
        return row.task if row else self.method_row.tasks[0]

    @property
    def task_row(self) -> Task:
        """The task's row."""
        return task(self.task)

    @property
    def outputs(self) -> int:
        """Logits of the model."""
        return self.classes + self.task_row.background

    @property
    def upscaling(self) -> tuple[int, ...]:
        """Channels after each transposed convolution of the mask decoder."""
        return self.backbone_row.upscaling[: self.method_row.stages or None]

    @property
    def label_table(self) -> dict[int, str]:
        """Output -> name, the background's included where there is one."""
        first = self.task_row.background
        names = self.labels or tuple(f"class {index}" for index in range(first, self.outputs))
        return dict(enumerate((*("background",) * first, *names)))

    def with_(self, **changes: Any) -> "Run":
        """A copy with some fields changed.

        What comes from rows follows: another method scales the learning rate by its row's factor and brings its own
        rank, side, prompts and blocks where the old one had its own, another backbone brings all of these, another data
        set or number of classes its own names.
        """
        follow: dict[str, Any] = {}
        if changes.get("method", self.method) != self.method:
            follow["learning_rate"] = self.learning_rate * method(changes["method"]).rate / self.method_row.rate
            own = _defaults(self.method_row, self.backbone_row)
            follow |= {name: 0 for name, value in own.items() if getattr(self, name) == value}
        if changes.get("backbone", self.backbone) != self.backbone:
            follow |= {"rank": 0, "side": 0, "prompts": 0, "blocks": 0, "learning_rate": 0.0}
        if {"dataset", "classes"} & changes.keys():
            follow["labels"] = ()
        return replace(self, **follow | changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"labels": list(self.labels)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Run":
        """The run that ``to_dict`` wrote.

        Raises:
            ValueError: a field is unknown or has another type than expected.
        """
        known = {field.name: field.type for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"run: unknown field {name!r}; known: {', '.join(known)}")
            if name == "labels":
                if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                    raise ValueError(f"run: labels is {value!r}, expected a list of names")
                continue
            expected = (int, float) if known[name] is float else known[name]
            if not isinstance(value, expected) or isinstance(value, bool):
                raise ValueError(f"run: {name} is {value!r}, expected {known[name].__name__}")
        return cls(**values)


# Fields that only some rows have.
OF_THE_ROW = ("prompts", "blocks")


def _defaults(row: Method, backbone_row: Backbone) -> dict[str, int]:
    side = min(row.side, backbone_row.published_side) or backbone_row.side
    # A shallow backbone may have fewer blocks than a row draws.
    blocks = min(row.blocks, backbone_row.depth)
    return {"rank": row.rank or backbone_row.rank, "side": side, "prompts": row.prompts, "blocks": blocks}


def _names(dataset: str, classes: int) -> tuple[str, ...]:
    row = DATASETS.get(dataset)
    background = task(row.task).background if row else 0
    names = tuple(name for index, name in row.labels if index >= background) if row and row.labels else ()
    return names if len(names) == classes else ()


def selected_blocks(run: Run, round_: int) -> tuple[int, ...]:
    """The blocks that a round trains, of a method that draws some; every party draws the same.

    Every subset of ``run.blocks`` blocks is as likely as any other, whatever other rounds drew.

    Returns:
        Numbers of blocks, ascending.
    """
    order = sorted(range(run.backbone_row.depth), key=lambda block: seed_of(run.seed, "blocks", round_, block))
    return tuple(sorted(order[: run.blocks]))


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any parts, the same on every machine and in every process.

    A site's seed is ``seed_of(run.seed, site, round)``; a tensor's is ``seed_of(run.seed, parameter path)``.
    """
    fingerprint = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(fingerprint[:8], "big") >> 1

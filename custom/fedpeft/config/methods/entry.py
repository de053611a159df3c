"""What a method's entry says: where adapters go, which tensors train and when, how each is averaged.

Nothing in the code branches on a method's name. Tensors are named by their parameter path in the model; patterns are
``fnmatch`` globs in which ``*`` crosses dots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from fedpeft.common.registry import Registry
from fedpeft.config.adapters import AdapterOptions, BlockSelection, with_options
from fedpeft.config.tasks import TaskEntry

SEGMENTATION = ("segmentation",)
CLASSIFICATION = ("classification",)
BOTH = (*SEGMENTATION, *CLASSIFICATION)

# Patterns that entries in several files use.
ENCODER_ATTENTION = "image_encoder.blocks.*.attn.*"
# The output layers of FLAP-SAM, section 2: UP and HYP. The paper's counts include the mask tokens as well.
OUTPUT_LAYERS = (
    "mask_decoder.output_upscaling.*",
    "mask_decoder.output_hypernetworks_mlps.*",
    "mask_decoder.mask_tokens.*",
)
# The head of a classifier, which no foundation model has.
HEAD = "head.*"
LORA = "*.lora.*"


@dataclass(frozen=True)
class Adapter:
    """One kind of adapter on every layer whose module path matches ``layer``.

    Attributes:
        options: the kind with its options, or the kind's name where it has no option.
        layer: glob of module paths.
        slots: for a fused projection, the parts of its output that get an adapter, out of ``of``; empty for a
            plain layer, which gets one adapter for its whole output.
        of: the parts of the fused output in their order.
    """

    options: AdapterOptions | str
    layer: str
    slots: tuple[str, ...] = ()
    of: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Name of the adapter in ``fedpeft.models.adapters``."""
        return self.options if isinstance(self.options, str) else self.options.kind

    @property
    def network(self) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
        """What it computes from its tensors, and where: equal for adapters that differ in their start alone."""
        alike = "" if isinstance(self.options, str) else self.options.network
        return alike or self.kind, self.layer, self.slots, self.of

    @property
    def defaults(self) -> dict[str, Any]:
        """The values that the method's entry gives the options."""
        return {} if isinstance(self.options, str) else self.options.model_dump()

    def resolved(self, values: Mapping[str, Any]) -> "Adapter":
        """The adapter with a run's options.

        Args:
            values: all options of the run; those of other kinds are ignored.

        Raises:
            ValueError: a value is out of range.
        """
        if isinstance(self.options, str):
            return self
        return replace(self, options=with_options(self.options, values))


def encoder_qv(options: AdapterOptions) -> Adapter:
    """An adapter on q and v of every block of the image encoder, in SAM and in a Vision Transformer."""
    return Adapter(options, "image_encoder.blocks.*.attn.qkv", slots=("q", "v"), of=("q", "k", "v"))


# Fields that people read, and those that ``to_dict`` writes in another form.
_NOT_COMPUTED_WITH = ("title", "note", "adapters", "selection")


@dataclass(frozen=True)
class Method:
    """A method's entry.

    Attributes:
        name: what commands and jobs call it.
        title: what its paper calls it.
        trains: globs of the parameter paths that train and travel; everything else is frozen.
        note: the method in a sentence, shown by ``fedpeft methods``.
        adapters: adapters that are put into the backbone; empty means the backbone as it is.
        rules: (glob, averaging rule) pairs; the first match decides (rules are in ``fedpeft.algebra.rules``).
        rate: factor on the backbone's learning rate: full-size tensors take smaller steps than adapters.
        rates: (glob, factor) pairs: tensors that learn faster or slower than the others; the first match decides.
        image_size: default image size in pixels, at most the size at which the backbone was trained; 0 means the
            backbone's.
        stages: how many of the backbone's upscaling stages the mask decoder has, a factor 2 each; 0 means all. Bilinear
            interpolation does the rest up to the input's resolution, as in SAM with its own 4x decoder.
        mixes_slices: whether a slice's mask depends on its neighbours in the stack; such a method predicts overlapping
            stacks, ``stride`` apart, and averages their probabilities.
        selects: glob of block parameters, ``...blocks.<number>...``; each round trains and exchanges them for a random
            subset of the blocks alone. "" if every round trains all blocks.
        selection: how many blocks a round selects; None for a method that selects none.
        tasks: what it can be trained for.
    """

    name: str
    title: str
    trains: tuple[str, ...]
    note: str
    adapters: tuple[Adapter, ...] = ()
    rules: tuple[tuple[str, str], ...] = ((LORA, "product"), ("*", "mean"))
    rate: float = 1.0
    rates: tuple[tuple[str, float], ...] = ()
    image_size: int = 0
    stages: int = 0
    mixes_slices: bool = False
    selects: str = ""
    selection: BlockSelection | None = None
    tasks: tuple[str, ...] = SEGMENTATION

    def __post_init__(self) -> None:
        """Check that the entry is complete.

        Raises:
            ValueError: it selects blocks without saying how many, or says how many without selecting; or two adapters
                give an option different values, of which a run could keep one only.
        """
        if bool(self.selects) != (self.selection is not None):
            raise ValueError(f"method {self.name!r}: selects and selection belong together; give both or none")
        for option, value in self.options.items():
            given = [item.defaults.get(option, value) for item in self.adapters]
            if any(other != value for other in given):
                raise ValueError(f"method {self.name!r}: a run has one {option}, but its adapters give {given}")

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options with their defaults; None where the backbone gives the value."""
        parts = [adapter.defaults for adapter in self.adapters]
        parts += [self.selection.model_dump()] if self.selection else []
        return {name: value for part in reversed(parts) for name, value in part.items()}

    def to_dict(self) -> dict[str, Any]:
        """Everything that determines the computation, ready for JSON: methods with equal values train alike."""
        adapters = [
            {"kind": item.kind, "layer": item.layer, "slots": item.slots, "of": item.of} for item in self.adapters
        ]
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _NOT_COMPUTED_WITH}
        return values | {"adapters": adapters, "options": self.options}

    def suits(self, task: TaskEntry) -> bool:
        """Whether it can be trained for a task; a method that mixes slices needs stacks of them."""
        return task.base in self.tasks and (task.stacks or not self.mixes_slices)

    def trains_tensor(self, path: str) -> bool:
        """Whether the parameter at ``path`` trains (and travels)."""
        return any(fnmatchcase(path, pattern) for pattern in self.trains)

    def selects_tensor(self, path: str) -> bool:
        """Whether the parameter at ``path`` belongs to a block that rounds may leave out."""
        return bool(self.selects) and fnmatchcase(path, self.selects)

    def rate_of(self, path: str) -> float:
        """The factor of the parameter at ``path`` on the run's learning rate."""
        return next((factor for pattern, factor in self.rates if fnmatchcase(path, pattern)), 1.0)

    def rule_of(self, path: str) -> str:
        """Name of the averaging rule of the parameter at ``path``.

        Raises:
            ValueError: no pattern of the entry matches.
        """
        for pattern, rule in self.rules:
            if fnmatchcase(path, pattern):
                return rule
        raise ValueError(f"method {self.name!r} has no averaging rule for {path!r}; add a pattern to the entry's rules")


METHODS: Registry[Method] = Registry("method")


def register_methods(*entries: Method) -> None:
    """Add methods; ValueError if there is one of that name."""
    for entry in entries:
        METHODS.register(entry.name, entry)

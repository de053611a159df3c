"""A run: everything that determines a training except data and checkpoint, which the sites have.

``RunConfig`` holds what was set, in nested sections; None means "not set". ``Run`` adds all other values, from the
entries of method, backbone and data set. Both are written and read as JSON and contain no path and no machine name.
Every layer uses them, so that local, centralized and federated training cannot drift apart.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedpeft.common.validation import one_line
from fedpeft.config.adapters import option_fields
from fedpeft.config.backbones import BACKBONES, Backbone
from fedpeft.config.datasets import DATASETS, Dataset
from fedpeft.config.defaults import fill
from fedpeft.config.methods import METHODS, Adapter, Method
from fedpeft.config.migrate import is_flat, nested
from fedpeft.config.preprocessing import AUGMENTATIONS, Preprocessing
from fedpeft.config.sections import SECTION_OF, SECTIONS, Data, Federation, Model, Training, partial
from fedpeft.config.strategies import SITE_WEIGHTINGS
from fedpeft.config.strategies.combinations import checks as checks_of
from fedpeft.config.strategies.combinations import step_of
from fedpeft.config.tasks import TASKS, TaskEntry

SETTINGS = ("local", "federated", "centralized")

if TYPE_CHECKING:
    ModelConfig = Any
    DataConfig = Any
    TrainingConfig = Any
    FederationConfig = Any
else:
    ModelConfig, DataConfig, TrainingConfig, FederationConfig = (
        partial(section, __name__) for section in SECTIONS.values()
    )


class RunConfig(BaseModel):
    """What a user, a job or a preset sets of a run; None is "not set"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig = Field(default_factory=lambda: ModelConfig(), description=Model.__doc__)
    data: DataConfig = Field(default_factory=lambda: DataConfig(), description=Data.__doc__)
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig(), description=Training.__doc__)
    federation: FederationConfig = Field(default_factory=lambda: FederationConfig(), description=Federation.__doc__)

    @classmethod
    def of(cls, **fields: Any) -> "RunConfig":
        """A config from field names alone; each value goes to the section, or the options, that declare the field.

        Raises:
            ValueError: a field is unknown, of another type or out of range; the message names it.
        """
        return cls().with_(**fields)

    def with_(self, **fields: Any) -> "RunConfig":
        """A copy with some fields set; None unsets a field, and every other field stays as it was.

        Args:
            fields: fields of the sections, or options of adapters, which are added to those that are set.

        Raises:
            ValueError: see ``of``.
        """
        values = self.to_dict()
        for name, value in fields.items():
            section = SECTION_OF.get(name)
            if section is None:
                _refuse_unknown(name)
                options = values["model"].get("options", {})
                values["model"]["options"] = options | {name: value}
            else:
                values[section][name] = value
        return self.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """What is set, as plain values ready for JSON, with every section."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """The config that ``to_dict`` wrote, or the flat fields that versions before 0.2 wrote.

        Raises:
            ValueError: a field is unknown, of another type or out of range; the message names it.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"run is {values!r}, expected an object of {', '.join(SECTIONS)}")
        try:
            return cls.model_validate(nested(values) if is_flat(values) else dict(values))
        except ValidationError as error:
            raise ValueError(_located(error)) from error

    def resolve(self) -> "Run":
        """The run with every value.

        Raises:
            ValueError: values do not fit one another; the message names the field.
        """
        return Run(self)


@dataclass(frozen=True)
class Run:
    """A run with every value, and the entries that it names.

    Args:
        config: what is set.

    Attributes:
        model, data, training, federation: the complete sections; ``model.options`` holds the method's own options.
        method, backbone, task: the entries.
    """

    config: RunConfig = field(compare=False)
    model: Model = field(init=False)
    data: Data = field(init=False)
    training: Training = field(init=False)
    federation: Federation = field(init=False)

    def __post_init__(self) -> None:
        """Add the values that the entries give, then check that all values fit together.

        Raises:
            ValueError: see ``RunConfig.resolve``.
        """
        values = self.config.to_dict()
        for name in ("method", "dataset"):
            if name not in values[SECTION_OF[name]]:
                raise ValueError(f"run: {name} is not set")
        method = METHODS[values["model"]["method"]]
        backbone = BACKBONES[values["model"].setdefault("backbone", Model.model_fields["backbone"].default)]
        fill(values, method, backbone)
        for section, declared in SECTIONS.items():
            object.__setattr__(self, section, declared(**values[section]))
        self._check()

    def _check(self) -> None:
        least = 2 - self.task.background
        classes, labels, stack = self.data.classes, self.data.labels, self.data.stack
        patch, depth = self.backbone.patch, self.backbone.depth
        checks = (
            (
                "method",
                self.model.method,
                self.method.suits(self.task),
                f"a method for {self.task.name}, which {self.model.method} is not"
                + ("; it mixes neighbouring slices, and an image has none" if self.method.mixes_slices else ""),
            ),
            (
                "backbone",
                self.model.backbone,
                self.task.base in self.backbone.tasks,
                f"a backbone for {self.task.name}, which {self.model.backbone} is not",
            ),
            ("classes", classes, classes >= least, f"at least {least}"),
            ("labels", labels, len(labels) in (0, classes), f"{classes} names, one for each class, or none"),
            ("labels", labels, len(set(labels)) == len(labels), "every name once"),
            (
                "image_size",
                self.model.image_size,
                self.model.image_size % patch == 0,
                f"a multiple of the patch size {patch} of {self.model.backbone}",
            ),
            ("stride", self.data.stride, self.data.stride <= stack, f"1 to stack ({stack})"),
            ("blocks", self.blocks, self.blocks <= depth, f"1 to the {depth} of {self.model.backbone}"),
            (
                "augmentation",
                self.data.augmentation,
                AUGMENTATIONS[self.data.augmentation].takes(self.preprocessing),
                f"another, since preprocessing {self.data.preprocessing!r} does not scale intensities to 0 to 1",
            ),
            *checks_of(self.federation, self.method, self.data.dataset, self.site_weights is not None),
        )
        for name, value, valid, expected in checks:
            if not valid:
                raise ValueError(f"run: {name} is {value!r}, expected {expected}")

    @property
    def method(self) -> Method:
        """The method's entry."""
        return METHODS[self.model.method]

    @property
    def backbone(self) -> Backbone:
        """The backbone's entry."""
        return BACKBONES[self.model.backbone]

    @property
    def task(self) -> TaskEntry:
        """The task's entry: the data set's task, or the method's first task where the data set has no entry."""
        entry = DATASETS.get(self.data.dataset)
        return TASKS[entry.task if entry else self.method.tasks[0]]

    @property
    def preprocessing(self) -> Preprocessing:
        """How volumes become the network's input; data that has no entry takes that of its task's plain data.

        Raises:
            ValueError: the data set has no preprocessing of that name.
        """
        entry: Dataset = DATASETS.get(self.data.dataset) or DATASETS[self.task.dataset]
        return entry.preprocessing_called(self.data.preprocessing)

    @property
    def site_weights(self) -> Mapping[str, float] | None:
        """Site -> its weight, as set or as published for the data set; None where the sites' reports decide."""
        if self.federation.site_weights is not None:
            return dict(self.federation.site_weights)
        entry = DATASETS.get(self.data.dataset)
        return entry.site_weights if entry and SITE_WEIGHTINGS[self.federation.site_weighting].published else None

    @property
    def server_step(self) -> dict[str, float]:
        """The constants of the server's step, as set or the server optimiser's: learning_rate, momentum, tau."""
        return step_of(self.federation)

    @cached_property
    def adapters(self) -> tuple[Adapter, ...]:
        """The method's adapters with this run's options."""
        values = dict(self.model.options)
        return tuple(adapter.resolved(values) for adapter in self.method.adapters)

    def option(self, name: str) -> Any:
        """The value of an option of the method's adapters; None where the method has none of that name."""
        return dict(self.model.options).get(name)

    @property
    def blocks(self) -> int:
        """Blocks that a round selects; 0 for a method that selects none."""
        return self.option("blocks") or 0

    @property
    def outputs(self) -> int:
        """Number of logits of the model."""
        return self.data.classes + self.task.background

    @property
    def upscaling(self) -> tuple[int, ...]:
        """Channels after each transposed convolution of the mask decoder."""
        return self.backbone.upscaling[: self.method.stages or None]

    @property
    def label_table(self) -> dict[int, str]:
        """Output index -> name, including the background where there is one."""
        first = self.task.background
        names = self.data.labels or tuple(f"class {index}" for index in range(first, self.outputs))
        return dict(enumerate((*("background",) * first, *names)))

    def with_(self, **fields: Any) -> "Run":
        """The run of the config with some fields set, see ``RunConfig.with_``."""
        return self.config.with_(**fields).resolve()

    def to_dict(self) -> dict[str, Any]:
        """Every value, ready for JSON."""
        return {section: getattr(self, section).model_dump(mode="json") for section in SECTIONS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Run":
        """The run that ``to_dict`` wrote; ValueError as ``RunConfig.from_dict``."""
        return RunConfig.from_dict(values).resolve()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every value and entry: the server's and the sites' packages must resolve a job alike."""
        entries = self.method.to_dict(), self.preprocessing
        values = self.model, self.data, self.training, self.federation
        return hashlib.sha256(repr((*values, *entries)).encode()).hexdigest()


def _refuse_unknown(option: str) -> None:
    known = [*SECTION_OF, *option_fields()]
    if option not in known:
        raise ValueError(f"run: unknown field {option!r}; known: {', '.join(known)}")


def make_run(method: str, dataset: str, backbone: str = "sam_vit_b", **fields: Any) -> Run:
    """A run from field names alone, see ``RunConfig.of``."""
    return RunConfig.of(method=method, dataset=dataset, backbone=backbone, **fields).resolve()


def _located(error: ValidationError) -> str:
    """The first error of pydantic without the field's section: field names are unique over the sections."""
    text = one_line(error, "run", [*SECTION_OF])
    for section in SECTIONS:
        text = text.replace(f"run: {section}.", "run: ", 1).replace(f"'{section}.", "'", 1)
    return text

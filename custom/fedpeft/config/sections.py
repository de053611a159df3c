"""The fields of a run, each declared once: type, help, range and default.

These classes are complete: every field has a value. What a user sets is a ``RunConfig`` (``run.py``), whose sections
are ``partial`` forms of the same classes, in which None means "not set". Command-line options, JSON schema, validation
and the rendering of jobs derive from these declarations.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    create_model,
)

from fedpeft.common.field_types import LATER, Growing, Schema, Weights
from fedpeft.common.registry import Registry
from fedpeft.config.adapters import option_fields, with_options
from fedpeft.config.backbones import BACKBONES
from fedpeft.config.codecs import CODECS
from fedpeft.config.methods import METHODS
from fedpeft.config.preprocessing import AUGMENTATIONS
from fedpeft.config.strategies import SERVER_OPTIMISERS, SITE_WEIGHTINGS


def _name_in(registry: Registry[Any]) -> Any:
    """The type of a field that names an entry; the field's metadata holds the registry, for lists of choices."""

    def known(name: str) -> str:
        if name not in registry:
            raise ValueError(
                f"{'an' if registry.kind[0] in 'aeiou' else 'a'} {registry.kind}; known: {', '.join(registry)}"
            )
        return name

    return Annotated[str, AfterValidator(known), registry, Schema(lambda: {"type": "string", "enum": [*registry]})]


if TYPE_CHECKING:
    MethodName = str
    BackboneName = str
    CodecName = str
    AugmentationName = str
    SiteWeightingName = str
    ServerOptimiserName = str
else:
    MethodName, BackboneName, CodecName, AugmentationName, SiteWeightingName, ServerOptimiserName = map(
        _name_in, (METHODS, BACKBONES, CODECS, AUGMENTATIONS, SITE_WEIGHTINGS, SERVER_OPTIMISERS)
    )


def _options(value: Any) -> Any:
    """Options of adapters as (name, value) pairs sorted by name, so that a run can be compared and hashed."""
    if isinstance(value, tuple):
        value = dict(value)
    if not isinstance(value, Mapping):
        raise ValueError("an object of options by name")
    known = option_fields()
    for name in value:
        if name not in known:
            raise ValueError(f"options among {', '.join(sorted(known))}; {name!r} is not one of them")
    given = {name: option for name, option in value.items() if option is not None}
    return tuple(sorted((name, getattr(with_options(known[name][0](), given), name)) for name in given))


def _options_schema() -> dict[str, Any]:
    """Every option of every kind, as its class declares it."""
    properties = {name: kind.model_json_schema()["properties"][name] for name, (kind, _) in option_fields().items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


Options = Annotated[
    tuple[tuple[str, Any], ...],
    BeforeValidator(_options),
    PlainSerializer(lambda pairs: None if pairs is None else dict(pairs)),
    Schema(_options_schema),
]


class Section(Growing):
    """Base of the sections: frozen and strict, so that no value is converted to another type silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Model(Section):
    """What is adapted, and how."""

    method: MethodName = Field(description="fine-tuning method, see fedpeft methods")
    backbone: BackboneName = Field("sam_vit_b", description="foundation model")
    initial: Literal["generic", "medical", "random"] = Field(
        "generic",
        description="weights to start from: the backbone's own (generic), others of the same shape that were trained "
        "on medical images (medical), or none (random)",
    )
    image_size: int = Field(
        gt=0,
        description="height and width of the network's input in pixels, a multiple of the backbone's patch; default "
        "the method's, or else the backbone's",
    )
    options: Options = Field((), description="options of the method's adapters")


class Data(Section):
    """What is trained on, and how it is cut into training samples."""

    dataset: str = Field(description="data set, as the site files call it")
    classes: int = Field(1, ge=1, description="classes to tell apart, in segmentation besides the background")
    labels: tuple[str, ...] = Field(
        strict=False,
        description="names of the classes in the order of their numbers, the same at every site; default the data "
        "set's own names, where it has as many",
    )
    stack: int = Field(5, ge=1, description="neighbouring slices in a stack (segmentation; FLAP-SAM's N)")
    stride: int = Field(
        5, ge=1, description="slices between the starts of two stacks, at most the stack: 1 in the paper, 5 is cheaper"
    )
    background_ratio: float = Field(
        0.5, ge=0, allow_inf_nan=False, description="stacks without foreground, as a share of those with it"
    )
    stack_ends: Annotated[Literal["inside", "repeat"], LATER] = Field(
        "inside",
        description="where stacks lie: inside the volume, or centred on every stride-th slice, with edge slices "
        "repeated and kept, as in FLAP-SAM's and MA-SAM's code (repeat)",
    )
    preprocessing: Annotated[str, LATER] = Field(
        "standard",
        description="how volumes become the network's input: the data set's standard, as the FLAP-SAM paper's text has "
        "it (paper), or as published code does it: authors (FLAP-SAM), samed, ma_sam; the last two are for CT unless "
        "the data set has its own",
    )
    augmentation: Annotated[AugmentationName, LATER] = Field(
        "standard",
        description="augmentation of stacks (segmentation): standard, that of published code (ma_sam, which FLAP-SAM "
        "uses too; samed), or none",
    )


class Training(Section):
    """How a site trains."""

    seed: int = Field(0, ge=0, description="seed of the initial model, the order of the data and the augmentation")
    local_epochs: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="passes over a site's data in a round; a fraction takes a share of the data, another each round",
    )
    batch: int = Field(4, ge=1, description="stacks of slices, or images, in a step")
    learning_rate: float = Field(
        gt=0,
        allow_inf_nan=False,
        description="peak learning rate of this method; default the base learning rate times the method's factor",
    )
    base_learning_rate: float = Field(
        gt=0,
        allow_inf_nan=False,
        description="peak learning rate of adapters, from which every method derives its own; default the backbone's",
    )
    weight_decay: float = Field(0.1, ge=0, allow_inf_nan=False, description="AdamW's weight decay; 0 makes it Adam")
    weight_decay_on: Annotated[Literal["matrices", "all"], LATER] = Field(
        "matrices",
        description="tensors with weight decay: those of two and more dimensions, or all, as in FLAP-SAM's code",
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the run in which the learning rate grows linearly")
    warmup_steps: Annotated[int | None, LATER] = Field(
        None,
        ge=0,
        description="steps of a site, over all rounds, in which the learning rate grows linearly, instead of a share "
        "of the run",
    )
    lr_schedule: Literal["cosine", "power7", "poly"] = Field(
        "cosine",
        description="course of the learning rate after the warm-up, down to zero: half a cosine, (1 - t)^7 as in "
        "FLAP-SAM's code, or (1 - t)^0.9 as in SAMed's (poly)",
    )
    decay_epochs: Annotated[float | None, LATER] = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="passes over a site's data, counted from the end of the warm-up, after which the schedule would "
        "reach zero; it may be more than the run has; default the end of the run",
    )
    dice_weight: float = Field(
        0.8, ge=0, le=1, description="segmentation's loss is (1 - w) cross-entropy + w Dice (FLAP-SAM: 0.8)"
    )
    loss_size: Annotated[Literal["input", "decoder"], LATER] = Field(
        "input",
        description="resolution of segmentation's loss: the network's input, or the mask decoder's own logits, which "
        "are smaller where it upscales less, as SAMed's 4x decoder",
    )
    loss: Literal["balanced", "plain", "focal"] = Field(
        "balanced",
        description="classification's loss: cross-entropy that weights a site's classes equally (balanced) or by "
        "frequency (plain), or focal loss",
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32",
        description="precision of a step's matrix products: bfloat16 needs a device that supports it, auto uses it "
        "where the device does; weights, loss and everything that travels stay float32",
    )


class Federation(Section):
    """How long the sites train together, and what they exchange."""

    rounds: int = Field(10, ge=1, description="rounds of the federation; local and centralized runs have as many")
    patience: int = Field(
        0, ge=0, description="end the run after this many rounds without a better mean validation score; 0: never"
    )
    site_weighting: SiteWeightingName = Field(
        "cases",
        description="weight of a site: its training cases, the same for all (the paper's equation 2), its training "
        "slices, or the constants that the data set's authors published",
    )
    site_weights: Annotated[Weights | None, LATER] = Field(
        None, description="weight of each site by name, as site-A=0.03,site-B=0.18, instead of a site weighting"
    )
    server_optimiser: Annotated[ServerOptimiserName, LATER] = Field(
        "average",
        description="the server's step from its model along the sites' averaged update, in federated runs alone, see "
        "fedpeft strategies; average: to the average itself",
    )
    server_learning_rate: Annotated[float | None, LATER] = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="factor of the server's step; default the server optimiser's: 1, or 0.01 for adaptive ones",
    )
    server_momentum: Annotated[float | None, LATER] = Field(
        None,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="share of the server's velocity that stays for the next round; default the server optimiser's",
    )
    server_tau: Annotated[float | None, LATER] = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="size of an update's entries far below which an adaptive server optimiser stops adapting, Reddi et "
        "al.'s tau; default the server optimiser's",
    )
    codec: CodecName = Field(
        "float32",
        description="how tensors are encoded on the wire, both ways: exactly, in 2 bytes a number, or in 1 byte and a "
        "scale for every 128 numbers; quantisation errors are sent with later rounds",
    )


SECTIONS: dict[str, type[Section]] = {
    "model": Model, "data": Data, "training": Training, "federation": Federation,
}  # fmt: skip
# Field -> the section that declares it; field names are unique over the sections.
SECTION_OF = {name: section for section, declared in SECTIONS.items() for name in declared.model_fields}


def partial(section: type[Section], module: str) -> type[Section]:
    """The same section with every field optional; None means "not set".

    Args:
        section: the complete one.
        module: name of the module that holds the new class as ``<section>Config``.
    """
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        declared: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        extra = {} if field.is_required() or name == "options" else {"default": field.default}
        fields[name] = (
            declared | None,
            Field(None, description=field.description, json_schema_extra=extra),
        )
    return create_model(
        f"{section.__name__}Config", __base__=Section, __module__=module, __doc__=section.__doc__, **fields
    )

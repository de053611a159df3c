"""The options of each kind of adapter, each declared once: help, range and default.

A method's entry holds one object of these classes for each adapter that it puts into a backbone (``config.methods``);
``fedpeft.models.adapters`` implements the adapter and registers it under the same kind. Where an option is None, its
description says where the value comes from.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fedpeft.common.validation import one_line

Kind = TypeVar("Kind", bound="AdapterOptions")


class AdapterOptions(BaseModel):
    """Base of the options of a kind of adapter.

    Attributes:
        kind: name of the adapter in ``fedpeft.models.adapters``.
        network: the kind that computes the same from the same tensors; "" means itself. The two differ in their start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: ClassVar[str] = ""
    network: ClassVar[str] = ""


class Ranked(AdapterOptions):
    """Options of adapters that are low-rank products."""

    rank: int | None = Field(None, ge=1, description="rank of the adapter's products; default the backbone's")


class LoRA(Ranked):
    """Low-rank adapters (Hu et al. 2022): W x + s B A x."""

    kind: ClassVar[str] = "lora"

    alpha: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="the update is scaled by alpha / rank; default no scale, as in the FLAP-SAM paper",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the inputs that the update drops in training")
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank) instead (Kalajdzievski 2023)")

    @model_validator(mode="after")
    def _needs_alpha(self) -> Self:
        if self.rslora and self.alpha is None:
            raise ValueError("rslora is True, expected with alpha, which it scales")
        return self


class RandomLoRA(LoRA):
    """LoRA whose A and B both start at random, so that B A is not zero: as in the FLAP-SAM paper's code."""

    kind: ClassVar[str] = "lora_random_b"
    network: ClassVar[str] = "lora"


class DoRA(Ranked):
    """Weight-decomposed low-rank adapters (Liu et al. 2024)."""

    kind: ClassVar[str] = "dora"


class MoLE(Ranked):
    """Mixtures of LoRA experts (Wu et al. 2024)."""

    kind: ClassVar[str] = "mole"

    experts: int = Field(3, ge=2, description="LoRA experts of each attention")


class FacTTensorTrain(Ranked):
    """FacT in tensor-train form (Jie and Deng 2023)."""

    kind: ClassVar[str] = "fact_tt"


class FacTTucker(Ranked):
    """FacT in Tucker form (Jie and Deng 2023)."""

    kind: ClassVar[str] = "fact_tk"


class Prompts(AdapterOptions):
    """Separate prompt tokens in every block (VPT-deep, Jia et al. 2022)."""

    kind: ClassVar[str] = "prompts"

    prompts: int = Field(10, ge=1, description="prompt tokens")


class FirstPrompts(Prompts):
    """Prompt tokens before the first block (VPT-shallow, Jia et al. 2022)."""

    kind: ClassVar[str] = "first_prompts"


class LowRankPrompts(Prompts, Ranked):
    """Every block's prompt tokens as a low-rank product (DVPT)."""

    kind: ClassVar[str] = "low_rank_prompts"


class Bottlenecks(AdapterOptions):
    """Bottlenecks after attention and MLP (Houlsby et al. 2019)."""

    kind: ClassVar[str] = "bottlenecks"

    width: int | None = Field(None, ge=1, description="width of the bottlenecks; default the backbone's rank")


class BlockSelection(AdapterOptions):
    """Each round trains and exchanges the tensors of random blocks alone (stochastic block attention).

    It adds nothing to the backbone; its option is declared here with those of the adapters.
    """

    kind: ClassVar[str] = "block_selection"

    blocks: int = Field(3, ge=1, description="blocks that a round selects")


def option_fields(base: type[AdapterOptions] = AdapterOptions) -> dict[str, tuple[type[AdapterOptions], FieldInfo]]:
    """Every option of every kind by its name: the class that declares it, and its field."""
    found: dict[str, tuple[type[AdapterOptions], FieldInfo]] = {}
    for kind in base.__subclasses__():
        found |= {name: (kind, field) for name, field in kind.model_fields.items() if name not in found}
        found = option_fields(kind) | found
    return found


def with_options(options: Kind, values: Mapping[str, Any]) -> Kind:
    """The same options with those of ``values`` that this kind has.

    Raises:
        ValueError: a value has another type or is out of range; the message names the option.
    """
    own = {name: value for name, value in values.items() if name in type(options).model_fields}
    try:
        return type(options)(**options.model_dump() | own)
    except ValidationError as error:
        raise ValueError(one_line(error, "run")) from error

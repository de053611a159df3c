"""How stored intensities become the network's input, and the augmentations that training adds.

The published codes' ways are entries here: of a data set where its constants belong to it (``datasets.py``), else the
generic ones at the end. ``fedpeft.data.volumes`` implements them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedpeft.common.field_types import LATER, Growing
from fedpeft.common.registry import Registry
from fedpeft.common.validation import one_line


def _rising(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    if pair is not None and not pair[0] < pair[1]:
        raise ValueError("a lower and a higher number, or None")
    return pair


def _orientation(axes: str) -> str:
    if sorted(axes) != ["A", "R", "S"]:
        raise ValueError("a permutation of R, A, S")
    return axes


Percent = Annotated[float, Field(ge=0, le=100)]
Voxels = Annotated[int, Field(gt=0, strict=True)]
# JSON makes lists of tuples.
Pair = Annotated[tuple[float, float], Field(strict=False), AfterValidator(_rising)]


class Window(BaseModel):
    """Constants to which intensities are clipped and by which they are scaled, in place of statistics.

    In the files' own units: Hounsfield units in CT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    low: float = Field(allow_inf_nan=False, description="lower bound, the minimum where scale is minmax")
    high: float = Field(allow_inf_nan=False, description="upper bound, the maximum where scale is minmax")
    mean: float = Field(0.0, allow_inf_nan=False, description="what zscore subtracts")
    std: float = Field(1.0, gt=0, allow_inf_nan=False, description="what zscore divides by")
    site: str | None = Field(None, description="the only site that has these constants; None: every site")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError("low below high")
        return self


class Preprocessing(Growing):
    """How stored intensities become the network's input; a step that is None is left out.

    The steps in order: choose the voxels that count (``foreground``); clip all intensities to percentiles of those
    (``percentiles``); scale by mean and standard deviation, or by minimum and maximum, of those (``scale``); clip the
    result (``clip``); pad slices to one size (``canvas``); scale each stack to 0 to 1 (``stack_range``); fit slices to
    the network's square (``fit``). Constants take the place of the first three at the sites that have some
    (``windows``).

    A voxel is foreground if it exceeds ``min + foreground * (p - min)``, where p is the volume's ``percentile``. A few
    very bright voxels, as in MR, hardly change that bound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    orientation: Annotated[str, AfterValidator(_orientation)] = Field(
        "RAS", description="axis codes that arrays are brought to; slices lie along the last axis"
    )
    scope: Literal["site", "volume"] = Field(
        "site",
        description="whose intensities count: those of the site's own training cases together, as kept in its datalist "
        "(a volume without them is normalised by its own), or each volume's own",
    )
    clip: Pair | None = Field(
        (-3.0, 6.0), description="lower and upper bound after scaling, in standard deviations for zscore"
    )
    foreground: float | None = Field(
        0.05, ge=0, lt=1, description="share of the robust intensity range above which a voxel counts; None: all count"
    )
    percentile: float = Field(99.5, gt=0, le=100, description="upper end of the robust intensity range, in percent")
    percentiles: Annotated[tuple[Percent, Percent], Field(strict=False), AfterValidator(_rising)] | None = Field(
        None, description="lower and upper percentile to which intensities are clipped before scaling, in percent"
    )
    scale: Literal["zscore", "minmax"] = Field(
        "zscore",
        description="zscore: (x - mean) / std; minmax: (x - min) / (max - min), min and max being the two percentiles' "
        "intensities where there are percentiles",
    )
    canvas: Annotated[tuple[Voxels, Voxels], Field(strict=False)] | None = Field(
        None,
        description="voxels along the first two axes, to which slices are padded on both sides with the volume's "
        "minimum before they are fitted to the network's input; a larger slice is an error",
    )
    windows: Annotated[tuple[Window, ...], Field(strict=False), LATER] = Field(
        (),
        description="constants to clip to and scale by in place of statistics; a site takes the first that names it or "
        "every site, and where there is none, the other fields count",
    )
    stack_range: Annotated[Literal["kept", "minmax"], LATER] = Field(
        "kept",
        description="kept: a slice is the same in every stack; minmax: each stack is scaled to 0 to 1 by the minimum "
        "and maximum of its own voxels",
    )
    fit: Annotated[Literal["aspect", "stretch"], LATER] = Field(
        "aspect",
        description="how a slice comes into the network's square: with its physical proportions, bilinear and padded "
        "(aspect), or stretched by cubic splines (stretch)",
    )

    def __init__(self, **values: Any) -> None:
        """Check the values.

        Raises:
            ValueError: a value has another type or is out of range; the message names the field.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(one_line(error, "preprocessing", [*Preprocessing.model_fields])) from error

    def window(self, site: str) -> Window | None:
        """The constants of a site's volumes; None if there are none. A single file has the site ""."""
        return next((window for window in self.windows if window.site in (None, site)), None)

    @property
    def rule(self) -> str:
        """How statistics are computed, in words; they may be compared or used only where the rules agree."""
        voxels = "all voxels"
        if self.foreground is not None:
            voxels = f"voxels > min + {self.foreground:g} (p{self.percentile:g} - min)"
        clipped = "" if self.percentiles is None else " clipped to p{:g} and p{:g}".format(*self.percentiles)
        return f"{'mean and std' if self.scale == 'zscore' else 'min and max'} of {voxels}{clipped}"

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The preprocessing that ``to_dict`` wrote.

        A field that an earlier version did not write gets its default, which is what that version did.

        Raises:
            ValueError: a field is unknown, of another type or out of range.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"preprocessing is {values!r}, expected an object with {', '.join(cls.model_fields)}")
        return cls(**values)


# Generic definitions by name, for data sets whose entry has none of its own under it.
PREPROCESSINGS: Registry[Preprocessing] = Registry("preprocessing")


@dataclass(frozen=True)
class AugmentationEntry:
    """An augmentation's entry, which ``fedpeft.data.volumes.augment`` implements.

    Attributes:
        name: what runs and commands call it.
        note: what it does, for people.
        unit_range: whether it needs intensities from 0 to 1.
    """

    name: str
    note: str
    unit_range: bool = False

    def takes(self, preprocessing: Preprocessing) -> bool:
        """Whether the preprocessing gives intensities of the range that the augmentation needs."""
        return not self.unit_range or "minmax" in (preprocessing.scale, preprocessing.stack_range)


AUGMENTATIONS: Registry[AugmentationEntry] = Registry("augmentation")


def register_preprocessing(name: str, preprocessing: Preprocessing) -> None:
    """Add a generic preprocessing; ValueError if there is one of that name."""
    PREPROCESSINGS.register(name, preprocessing)


def register_augmentations(*entries: AugmentationEntry) -> None:
    """Add augmentations; ValueError if there is one of that name."""
    for entry in entries:
        AUGMENTATIONS.register(entry.name, entry)


# The published codes take a file's own axes, turned in the plane; these keep the standard's. For Fed-KiTS both
# are the same but for the order of the slices. Other files may differ by a turn or a flip, which training adds anyway.
# FLAP-SAM's and MA-SAM's code for prostate MR, for volumes of any kind: from the volume's minimum to its 99 % quantile.
register_preprocessing(
    "authors",
    Preprocessing(
        scope="volume",
        foreground=None,
        percentiles=(0.0, 99.0),
        scale="minmax",
        clip=None,
        stack_range="minmax",
        fit="stretch",
    ),
)
# SAMed's code for abdominal CT. It has no stacks, so nothing is scaled by them.
register_preprocessing(
    "samed",
    Preprocessing(
        scope="volume",
        foreground=None,
        scale="minmax",
        clip=None,
        windows=(Window(low=-125.0, high=275.0),),
        fit="stretch",
    ),
)
# MA-SAM's code for abdominal CT. It also subtracts a mean and divides by a deviation, which the stacks' range undoes.
register_preprocessing(
    "ma_sam",
    Preprocessing(
        scope="volume",
        foreground=None,
        scale="minmax",
        clip=None,
        windows=(Window(low=-200.0, high=250.0),),
        stack_range="minmax",
        fit="stretch",
    ),
)

register_augmentations(
    AugmentationEntry("standard", "FLAP-SAM's parts, geometry resampled once; for intensities of any range"),
    AugmentationEntry("ma_sam", "MA-SAM's and FLAP-SAM's published code: two of ten operations always", True),
    AugmentationEntry("samed", "SAMed's published code: turns and flips, or a rotation"),
    AugmentationEntry("none", "nothing"),
)

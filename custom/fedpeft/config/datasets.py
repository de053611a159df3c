"""Data sets: what their labels mean and how their volumes are normalised.

The site file says where a data set's files are, and ``datalist.json`` which cases it has. No code branches on a data
set's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

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


class Preprocessing(BaseModel):
    """How stored intensities become the network's input; a step that is None is left out.

    The steps in order: choose the voxels that count (``foreground``); clip all intensities to percentiles of those
    (``percentiles``); scale by mean and standard deviation, or by minimum and maximum, of those (``scale``); clip the
    result (``clip``); pad slices to one size (``canvas``).

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

    def __init__(self, **values: Any) -> None:
        """Check the values.

        Raises:
            ValueError: a value has another type or is out of range; the message names the field.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(one_line(error, "preprocessing", [*Preprocessing.model_fields])) from error

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


@dataclass(frozen=True)
class Dataset:
    """A data set's entry.

    Attributes:
        name: what commands, jobs and site files call it.
        title: for people.
        labels: (index, name) pairs from 0 on, which in segmentation is the background; None if the datalists give the
            table.
        preprocessing: how volumes are normalised.
        task: what it is labelled for.
    """

    name: str
    title: str
    labels: tuple[tuple[int, str], ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    task: str = "segmentation"


DATASETS: Registry[Dataset] = Registry("data set")


def register_datasets(*entries: Dataset) -> None:
    """Add data sets; ValueError if there is one of that name."""
    for entry in entries:
        DATASETS.register(entry.name, entry)


def dataset(name: str) -> Dataset:
    """The entry called ``name``; ValueError if there is none."""
    return DATASETS.find(name)


register_datasets(
    Dataset("phantom", "Synthetic organs with lesions", ((0, "background"), (1, "organ"), (2, "lesion"))),
    # Each volume by itself: the scanners are unknown, and one dark scan must not shift its whole site.
    Dataset(
        "folder",
        "Volumes from a tree of <site>/<case>/ folders",
        preprocessing=Preprocessing(scope="volume"),
    ),
    # The next three follow the FLAP-SAM paper. Its code clips Fed-KiTS to percentiles 0.5 and 99.5 instead.
    Dataset(
        "kits19",
        "Fed-KiTS: kidneys with tumours in CT, six sites",
        ((0, "background"), (1, "kidney"), (2, "tumour")),
        Preprocessing(foreground=None, percentiles=(5.0, 95.0), clip=None),
    ),
    Dataset(
        "ixi",
        "Fed-IXI: the brain in small T1 MR volumes, three hospitals",
        ((0, "background"), (1, "brain")),
        Preprocessing(scope="volume", foreground=None, scale="minmax", clip=None, canvas=(64, 64)),
    ),
    Dataset(
        "prostate",
        "The prostate in T2 MR, six hospitals",
        ((0, "background"), (1, "prostate")),
        Preprocessing(foreground=None, clip=None),
    ),
    Dataset("images", "Images of one class each, from class folders or a table", task="classification"),
    Dataset(
        "isic2019",
        "Fed-ISIC2019: skin lesions in dermoscopy, six centres",
        tuple(enumerate(("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"))),
        task="classification",
    ),
    Dataset(
        "decathlon",
        "A task of the Medical Segmentation Decathlon",
        preprocessing=Preprocessing(scope="volume"),
    ),
)

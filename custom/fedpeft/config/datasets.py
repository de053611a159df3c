"""Data sets: what their labels mean and how their volumes are normalised.

A data set is a row. Where its files lie is the site's business (the site file), which cases it has is its
``datalist.json``'s; nothing in the code branches on a data set's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fedpeft.common.registry import find

SCOPES = ("site", "volume")
SCALES = ("zscore", "minmax")


def _rising(pair: tuple[float, float]) -> bool:
    return len(pair) == 2 and pair[0] < pair[1]


@dataclass(frozen=True)
class Preprocessing:
    """From stored intensities to what the network sees; a step that is None is left out.

    In this order: the voxels that count are chosen (``foreground``); all intensities are clipped to percentiles of
    those (``percentiles``); they are scaled by mean and standard deviation, or by minimum and maximum, of those
    (``scale``); the result is clipped (``clip``); slices are padded to one size (``canvas``).

    A voxel is foreground if it exceeds ``min + foreground * (p - min)``, p being the volume's ``percentile``: robust
    against a few very bright voxels, as in MR.

    Attributes:
        orientation: axis codes that arrays are brought to; slices lie along the last axis.
        scope: "site": percentiles, mean and so on are those of the site's own training cases together, as kept in its
            datalist (a volume without them is normalised by its own); "volume": each volume by its own.
        clip: lower and upper bound after scaling (standard deviations for "zscore"); None: no bound.
        foreground: share of the robust intensity range above which a voxel counts; None: all voxels count.
        percentile: upper end of the robust intensity range, in percent.
        percentiles: lower and upper percentile to which intensities are clipped before scaling, in percent; None: they
            are not.
        scale: "zscore": (x - mean) / std; "minmax": (x - min) / (max - min), min and max being the two percentiles'
            intensities where there are percentiles.
        canvas: voxels along the first two axes, to which slices are padded on both sides with the volume's minimum,
            before they are fitted to the network's input; a larger slice is an error. None: slices keep their size.
    """

    orientation: str = "RAS"
    scope: str = "site"
    clip: tuple[float, float] | None = (-3.0, 6.0)
    foreground: float | None = 0.05
    percentile: float = 99.5
    percentiles: tuple[float, float] | None = None
    scale: str = "zscore"
    canvas: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value is out of range; the message names the field.
        """
        low_high, canvas = self.percentiles, self.canvas
        checks = (
            ("orientation", sorted(self.orientation) == ["A", "R", "S"], "a permutation of R, A, S"),
            ("scope", self.scope in SCOPES, f"one of {', '.join(SCOPES)}"),
            ("clip", self.clip is None or _rising(self.clip), "a lower and a higher bound, or None"),
            ("foreground", self.foreground is None or 0 <= self.foreground < 1, "0 to below 1, or None"),
            ("percentile", 0 < self.percentile <= 100, "above 0 up to 100"),
            ("percentiles", low_high is None or (_rising(low_high) and low_high[0] >= 0 and low_high[1] <= 100),
             "a lower and a higher percentage, 0 to 100, or None"),
            ("scale", self.scale in SCALES, f"one of {', '.join(SCALES)}"),
            ("canvas", canvas is None or (len(canvas) == 2 and all(isinstance(n, int) and n > 0 for n in canvas)),
             "two positive whole numbers of voxels, or None"),
        )  # fmt: skip
        for name, valid, expected in checks:
            if not valid:
                raise ValueError(f"preprocessing: {name} is {getattr(self, name)!r}, expected {expected}")

    @property
    def rule(self) -> str:
        """What statistics were computed of; two statistics may be compared or used only if their rules agree."""
        voxels = "all voxels"
        if self.foreground is not None:
            voxels = f"voxels > min + {self.foreground:g} (p{self.percentile:g} - min)"
        clipped = "" if self.percentiles is None else " clipped to p{:g} and p{:g}".format(*self.percentiles)
        return f"{'mean and std' if self.scale == 'zscore' else 'min and max'} of {voxels}{clipped}"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """What ``dataclasses.asdict`` wrote, also after JSON has made lists of tuples.

        Fields that an earlier version did not write have their defaults, which are what that version did.

        Raises:
            ValueError: a field is unknown, of another type or out of range.
        """
        known = [item.name for item in fields(cls)]
        if not isinstance(values, Mapping):
            raise ValueError(f"preprocessing is {values!r}, expected an object with {', '.join(known)}")
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"preprocessing: unknown field {unknown[0]!r}; known: {', '.join(known)}")
        try:
            return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
        except TypeError as error:
            raise ValueError(f"preprocessing: a field of {dict(values)} has a wrong type ({error})") from error


@dataclass(frozen=True)
class Dataset:
    """A row of the data sets table.

    Attributes:
        name: what commands, jobs and site files call it.
        title: for people.
        labels: (index, name) pairs from 0 on, which in segmentation is the background; None if the datalists bring the
            table.
        preprocessing: how volumes are normalised.
        task: what it is labelled for.
    """

    name: str
    title: str
    labels: tuple[tuple[int, str], ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    task: str = "segmentation"


DATASETS: dict[str, Dataset] = {
    row.name: row
    for row in (
        Dataset("phantom", "Synthetic organs with lesions", ((0, "background"), (1, "organ"), (2, "lesion"))),
        # By the volume: nothing is known of the scanners, and one dark scan must not shift its whole site.
        Dataset(
            "folder",
            "A tree of <site>/<case>/ folders prepared by fedpeft data prepare folder",
            preprocessing=Preprocessing(scope="volume"),
        ),
        # The next three as FLAP-SAM's paper describes them. Its code clips Fed-KiTS to 0.5 and 99.5 instead.
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
        Dataset("images", "Pictures of one class each, from class folders or a table", task="classification"),
        Dataset(
            "isic2019",
            "Fed-ISIC2019: skin lesions in dermoscopy, six centres",
            tuple(enumerate(("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"))),
            task="classification",
        ),
    )
}


def dataset(name: str) -> Dataset:
    """The row called ``name``; ValueError if there is none."""
    return find(DATASETS, name, "data set")

"""Data sets: what their labels mean and how their volumes are normalised.

A data set is a row. Where its files lie is the site's business (the site file), which cases it has is its
``datalist.json``'s; nothing in the code branches on a data set's name.
"""

from dataclasses import dataclass, field

from fedpeft.spec.lookup import find

SCOPES = ("site", "volume")


@dataclass(frozen=True)
class Preprocessing:
    """From stored intensities to what the network sees: z-score of the foreground, clipped.

    A voxel is foreground if it exceeds ``min + foreground * (p - min)``, p being the volume's ``percentile``: robust
    against a few very bright voxels, as in MR.

    Attributes:
        orientation: axis codes that arrays are brought to; slices lie along the last axis.
        scope: "site": mean and standard deviation over the site's own training cases, as kept in its datalist (a volume
            without them is normalised by its own); "volume": each volume by its own.
        clip: lower and upper bound after the z-score, in standard deviations.
        foreground: share of the robust intensity range above which a voxel is foreground.
        percentile: upper end of the robust intensity range, in percent.
    """

    orientation: str = "RAS"
    scope: str = "site"
    clip: tuple[float, float] = (-3.0, 6.0)
    foreground: float = 0.05
    percentile: float = 99.5

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value is out of range; the message names the field.
        """
        checks = (
            ("orientation", sorted(self.orientation) == ["A", "R", "S"], "a permutation of R, A, S"),
            ("scope", self.scope in SCOPES, f"one of {', '.join(SCOPES)}"),
            ("clip", self.clip[0] < self.clip[1], "a lower and a higher bound"),
            ("foreground", 0 <= self.foreground < 1, "0 to below 1"),
            ("percentile", 0 < self.percentile <= 100, "above 0 up to 100"),
        )
        for name, valid, expected in checks:
            if not valid:
                raise ValueError(f"preprocessing: {name} is {getattr(self, name)!r}, expected {expected}")

    @property
    def rule(self) -> str:
        """What statistics were computed of; two statistics may be compared or used only if their rules agree."""
        return f"mean and std of voxels > min + {self.foreground:g} (p{self.percentile:g} - min)"


@dataclass(frozen=True)
class Dataset:
    """A row of the data sets table.

    Attributes:
        name: what commands, jobs and site files call it.
        title: for people.
        labels: (index, name) pairs from background, 0, on; None if the datalists bring the table.
        preprocessing: how volumes are normalised.
    """

    name: str
    title: str
    labels: tuple[tuple[int, str], ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


DATASETS: dict[str, Dataset] = {
    row.name: row
    for row in (
        Dataset("phantom", "Synthetic organs with lesions", ((0, "background"), (1, "organ"), (2, "lesion"))),
        Dataset("folder", "A tree of <site>/<case>/ folders prepared by fedpeft data prepare folder"),
    )
}


def dataset(name: str) -> Dataset:
    """The row called ``name``; ValueError if there is none."""
    return find(DATASETS, name, "data set")

"""Normalisation by the z-score of foreground voxels.

The statistics are computed at a site from its own training cases, stay in its datalist and are never sent.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fedpeft.spec.datasets import Preprocessing


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of foreground voxels.

    Attributes:
        mean: in the files' own intensity units.
        std: positive, same units.
        cases: number of volumes they were computed from.
        rule: ``Preprocessing.rule`` at that time.
    """

    mean: float
    std: float
    cases: int
    rule: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> "Statistics":
        """The statistics that ``to_dict`` wrote.

        Args:
            values: mean, std, cases and rule.
            where: the file, for messages.

        Raises:
            ValueError: a value is missing, of another type or out of range.
        """
        types = {"mean": (int, float), "std": (int, float), "cases": int, "rule": str}
        if not isinstance(values, dict) or set(values) != set(types):
            raise ValueError(f"{where}: statistics are {values!r}, expected {', '.join(types)}; prepare the data again")
        for name, kind in types.items():
            if not isinstance(values[name], kind) or isinstance(values[name], bool):
                raise ValueError(f"{where}: statistics: {name} is {values[name]!r}; prepare the data again")
        if not (np.isfinite(values["mean"]) and np.isfinite(values["std"]) and values["std"] > 0):
            raise ValueError(f"{where}: statistics are {values!r}, expected a finite mean and std > 0; prepare again")
        return cls(**values)


def foreground(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Which voxels are foreground.

    Args:
        image: intensities, any shape.
        preprocessing: the rule.

    Returns:
        Booleans of the image's shape.
    """
    low = float(image.min())
    high = float(np.percentile(image, preprocessing.percentile))
    return image > low + preprocessing.foreground * (high - low)


def statistics_of(images: Iterable[np.ndarray], preprocessing: Preprocessing) -> Statistics:
    """Mean and standard deviation over all foreground voxels of all images, in float64, one image in memory at a time.

    Args:
        images: volumes of one site in stored intensities; at least one.
        preprocessing: the foreground rule.

    Raises:
        ValueError: there is no image, or all foreground voxels are equal.
    """
    count, mean, squares, cases = 0, 0.0, 0.0, 0
    for image in images:
        voxels = image[foreground(image, preprocessing)].astype(np.float64)
        cases += 1
        if not voxels.size:
            continue
        # Chan et al. 1983: combining centred sums does not cancel, unlike the difference of squares.
        delta, total = voxels.mean() - mean, count + voxels.size
        squares += ((voxels - voxels.mean()) ** 2).sum() + delta**2 * count * voxels.size / total
        mean += delta * voxels.size / total
        count = total
    std = float(np.sqrt(squares / count)) if count else 0.0
    if std <= 0:
        raise ValueError(f"no variation among the {count} foreground voxels of {cases} images, expected grey values")
    return Statistics(float(mean), std, cases, preprocessing.rule)


def normalise(image: np.ndarray, statistics: Statistics, preprocessing: Preprocessing) -> np.ndarray:
    """The clipped z-score of all voxels.

    Args:
        image: stored intensities, any shape.
        statistics: of the foreground; their rule must be the preprocessing's.
        preprocessing: clip range.

    Returns:
        float32 of the same shape within ``preprocessing.clip``.

    Raises:
        ValueError: the statistics were computed by another rule.
    """
    if statistics.rule != preprocessing.rule:
        raise ValueError(
            f"statistics are {statistics.rule!r}, the data set's rule is {preprocessing.rule!r}; prepare the data again"
        )
    scores = (image.astype(np.float32) - np.float32(statistics.mean)) / np.float32(statistics.std)
    return np.clip(scores, *preprocessing.clip)

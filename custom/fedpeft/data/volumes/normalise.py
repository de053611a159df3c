"""Normalisation by statistics of a site's or a volume's intensities.

A site's statistics are computed there from its own training cases, stay in its datalist and are never sent.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any, Self

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from fedpeft.config.preprocessing import Preprocessing, Window
from fedpeft.data.volumes.tally import Tally


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Statistics:
    """Statistics of the voxels that count, in the files' own intensity units.

    Attributes:
        mean: of the intensities, clipped to ``low`` and ``high`` if the rule has percentiles.
        std: of the same, positive.
        cases: number of volumes they were computed from.
        rule: ``Preprocessing.rule`` at that time.
        low: the lower percentile, or the minimum for min-max without percentiles; None if the rule needs neither.
        high: the upper percentile or the maximum, above ``low``.
    """

    mean: float
    std: Annotated[float, Field(gt=0)]
    cases: int
    rule: str
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if len(bounds) == 1 or (bounds and not bounds[0] < bounds[1]):
            raise ValueError("expected low and high, low < high, or neither")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Any) -> "Statistics":
        """The statistics that ``to_dict`` wrote.

        Raises:
            ValueError: a value is missing, of another type or out of range.
        """
        try:
            return cls(**values)
        except (TypeError, ValidationError) as error:
            raise ValueError(
                f"statistics are {values!r}, expected finite numbers mean and std > 0, cases, rule, and perhaps "
                "low < high; prepare the data again"
            ) from error


def foreground(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """The voxels that count.

    Args:
        image: intensities, any shape.
        preprocessing: the rule; all voxels count where its ``foreground`` is None.

    Returns:
        Booleans of the image's shape.
    """
    if preprocessing.foreground is None:
        return np.ones(image.shape, bool)
    low = float(image.min())
    high = float(np.percentile(image, preprocessing.percentile))
    return image > low + preprocessing.foreground * (high - low)


def statistics_of(images: Iterable[np.ndarray], preprocessing: Preprocessing) -> Statistics:
    """Statistics over all voxels that count of all images, in float64, one image in memory at a time.

    Percentiles are exact for up to a million different intensities, see ``tally``.

    Args:
        images: volumes of one site in stored intensities; at least one.
        preprocessing: which voxels count, and whether they are clipped to percentiles.

    Raises:
        ValueError: there is no image, or all voxels that count are equal after clipping.
    """
    counted = (_counted(image, preprocessing) for image in images)
    mean, std, cases, low, high = (
        _moments(counted) if preprocessing.percentiles is None else _clipped_moments(counted, preprocessing.percentiles)
    )
    if std <= 0:
        raise ValueError(f"no variation in {cases} images ({preprocessing.rule}), expected grey values")
    return Statistics(mean, std, cases, preprocessing.rule, *((low, high) if _bounded(preprocessing) else (None, None)))


def normalise(image: np.ndarray, statistics: Statistics, preprocessing: Preprocessing) -> np.ndarray:
    """Clip to the percentiles, scale and clip, each if the preprocessing says so.

    Args:
        image: stored intensities, any shape.
        statistics: their rule must be the preprocessing's.
        preprocessing: the steps.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: the statistics were computed by another rule, or lack what this one needs.
    """
    if statistics.rule != preprocessing.rule or (_bounded(preprocessing) and statistics.low is None):
        raise ValueError(
            f"statistics are {statistics.rule!r}, the data set's rule is {preprocessing.rule!r}; prepare the data again"
        )
    # The check above leaves None only where neither bound is used.
    low, high = statistics.low or 0.0, statistics.high or 0.0
    scores = image.astype(np.float32)
    if preprocessing.percentiles is not None:
        scores = np.clip(scores, np.float32(low), np.float32(high))
    if preprocessing.scale == "zscore":
        shift, size = statistics.mean, statistics.std
    else:
        shift, size = low, high - low
    return _scaled(scores, shift, size, preprocessing)


def apply_window(image: np.ndarray, window: Window, preprocessing: Preprocessing) -> np.ndarray:
    """Clip to a window's bounds, scale by its constants and clip, as the preprocessing says.

    Args:
        image: stored intensities, any shape.
        window: the constants.
        preprocessing: how they scale.

    Returns:
        float32 of the same shape.
    """
    scores = np.clip(image.astype(np.float32), np.float32(window.low), np.float32(window.high))
    if preprocessing.scale == "zscore":
        return _scaled(scores, window.mean, window.std, preprocessing)
    return _scaled(scores, window.low, window.high - window.low, preprocessing)


def _scaled(scores: np.ndarray, shift: float, size: float, preprocessing: Preprocessing) -> np.ndarray:
    scores = (scores - np.float32(shift)) / np.float32(size)
    return scores if preprocessing.clip is None else np.clip(scores, *preprocessing.clip)


def _bounded(preprocessing: Preprocessing) -> bool:
    """Whether two bounds belong to the statistics."""
    return preprocessing.percentiles is not None or preprocessing.scale == "minmax"


def _counted(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    # "K" is the order in memory: NIfTI arrays are transposed, and another order would copy across it.
    return image.ravel("K") if preprocessing.foreground is None else image[foreground(image, preprocessing)]


def _moments(images: Iterable[np.ndarray]) -> tuple[float, float, int, float, float]:
    """Mean, standard deviation, number of images, minimum and maximum."""
    count, mean, squares, cases, low, high = 0, 0.0, 0.0, 0, np.inf, -np.inf
    for image in images:
        voxels = image.astype(np.float64)
        cases += 1
        if not voxels.size:
            continue
        # Chan et al. 1983: combining centred sums does not cancel, unlike the difference of squares.
        delta, total = voxels.mean() - mean, count + voxels.size
        squares += ((voxels - voxels.mean()) ** 2).sum() + delta**2 * count * voxels.size / total
        mean += delta * voxels.size / total
        count = total
        low, high = min(low, float(voxels.min())), max(high, float(voxels.max()))
    return float(mean), float(np.sqrt(squares / count)) if count else 0.0, cases, low, high


def _clipped_moments(
    images: Iterable[np.ndarray], percentiles: tuple[float, float]
) -> tuple[float, float, int, float, float]:
    """Like ``_moments``, but of intensities clipped to percentiles, which are the last two values."""
    tally, cases = Tally(), 0
    for image in images:
        tally.add(image)
        cases += 1
    if not tally.counts.size:
        return 0.0, 0.0, cases, 0.0, 0.0
    low, high = tally.percentiles(percentiles)
    return *tally.moments(low, high), cases, low, high

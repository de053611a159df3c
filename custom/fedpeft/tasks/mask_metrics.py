"""Metrics of two masks beside Dice: HD95, ASSD and NSD, in 2-D and 3-D, and the one rule for empty masks.

A metric is one entry of ``MASK_METRICS``. Lengths are in the unit of the spacing, millimetres for volumes.

**Surface.** The voxels of a mask that have a neighbour outside of it across a face; outside the image counts as outside
the mask, so a mask that touches the border has surface there. A surface distance is that from the centre of a surface
voxel to the nearest centre of the other surface. This is MONAI's definition and that of Metrics Reloaded (Maier-Hein et
al. 2024). DeepMind's ``surface-distance``, which KiTS and FLARE use, puts the surface between voxels and weighs its
elements by area; its values are close to these but not the same.

**Empty masks.** Both empty: NSD 1, distances 0, as Dice is 1. One empty: NSD 0, as Dice is 0 (KiTS scores so), and
the distances are the image's diagonal, the penalty of BraTS. To leave such cases out would reward a model for finding
nothing. Every value is therefore finite.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from monai.metrics import get_mask_edges
from scipy.spatial import KDTree
from torch import Tensor

from fedpeft.common.registry import Registry
from fedpeft.tasks.scores import CaseScore, Scoring

# Lengths that differ by less are the same: a voxel exactly at the tolerance counts, however its header is rounded.
SLACK = 1e-4
# The smallest tolerance of the FLARE challenge, which has 2 to 7 mm by organ; KiTS's are near 1 mm, from the agreement
# of its readers.
NSD_TOLERANCE = 2.0
EMPTY_RULE = (
    "Empty masks: both empty is Dice 1, NSD 1 and distance 0; one empty is Dice 0, NSD 0 and, as in BraTS, the image's "
    "diagonal as distance."
)


@dataclass(frozen=True)
class MaskPair:
    """The two masks of one class.

    Attributes:
        prediction, label: bool, of one shape, 2-D or 3-D.
        spacing: size of a voxel along each axis, in the axes' order.
        tolerance: of NSD, in the unit of the spacing; None where no metric uses it.
    """

    prediction: np.ndarray
    label: np.ndarray
    spacing: Sequence[float]
    tolerance: float | None = None

    @cached_property
    def empty(self) -> Literal["", "both", "label", "prediction"]:
        """Which mask has no voxel."""
        if self.prediction.any():
            return "" if self.label.any() else "label"
        return "prediction" if self.label.any() else "both"

    @property
    def diagonal(self) -> float:
        """Length of the image's diagonal."""
        return float(np.linalg.norm(np.multiply(self.label.shape, self.spacing)))

    @cached_property
    def distances(self) -> tuple[np.ndarray, np.ndarray]:
        """Surface distances, float64: of the prediction's surface voxels to the label's, and the other way round.

        Neither mask is empty. MONAI's ``get_surface_distance`` gives the same, rounded to float32.
        """
        # MONAI crops both masks to their common bounding box first.
        edges = get_mask_edges(self.prediction, self.label)
        found, true = (np.argwhere(edge) * np.asarray(self.spacing, dtype=np.float64) for edge in edges)
        return _nearest(found, true), _nearest(true, found)


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distance of each point to the nearest of the others, both (N, axes)."""
    return KDTree(others, leafsize=32).query(points)[0]


def hd95(pair: MaskPair) -> float:
    """95th percentile Hausdorff distance: the larger of the two directed 95th percentiles, interpolated linearly.

    Huttenlocher et al. 1993, as MONAI, DeepMind and Metrics Reloaded have it. MedPy takes one percentile of the
    distances of both directions together, which is smaller.
    """
    return max(float(np.quantile(distances, 0.95)) for distances in pair.distances)


def assd(pair: MaskPair) -> float:
    """Average symmetric surface distance: the mean over the surface voxels of both masks together.

    As MONAI and Metrics Reloaded have it. The mean of the two directed means is another metric, MASD.
    """
    return float(np.concatenate(pair.distances).mean())


def nsd(pair: MaskPair) -> float:
    """Normalised surface Dice, 0 to 1: the share of both masks' surface voxels within the tolerance of the other.

    Nikolov et al. 2021; surface voxels are counted and not weighed by area, as in MONAI and Metrics Reloaded.
    """
    assert pair.tolerance is not None, "NSD is computed with a tolerance"
    return float((np.concatenate(pair.distances) <= pair.tolerance + SLACK).mean())


@dataclass(frozen=True)
class Metric:
    """A metric of the two masks of one class.

    Attributes:
        name: of the option and in files.
        title: for people; "{unit}" and "{tolerance}" are replaced.
        unit: "{unit}" for a length, "" for a share from 0 to 1.
        better: whether higher or lower values are better; a metric of which lower is better is a length.
        function: its value for two masks, neither of which is empty.
        tolerant: whether it uses the tolerance.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    function: Callable[[MaskPair], float]
    tolerant: bool = False

    def of(self, pair: MaskPair) -> float:
        """The metric's value, by the module's rule where a mask is empty."""
        if not pair.empty:
            return self.function(pair)
        best, worst = (1.0, 0.0) if self.better == "higher" else (0.0, pair.diagonal)
        return best if pair.empty == "both" else worst

    def to_dict(self, scoring: Scoring, unit: str) -> dict[str, Any]:
        """Title, unit and direction, ready for JSON; ``unit`` is the task's unit of length."""
        tolerance = {"tolerance": scoring.nsd_tolerance} if self.tolerant else {}
        title = self.title.format(unit=unit, tolerance=f"{scoring.nsd_tolerance or 0:g}")
        return {"title": title, "unit": self.unit.format(unit=unit), "better": self.better, **tolerance}


MASK_METRICS: Registry[Metric] = Registry("metric")


def register_metrics(*metrics: Metric) -> None:
    """Add metrics; ValueError if there is one of that name."""
    for metric in metrics:
        MASK_METRICS.register(metric.name, metric)


register_metrics(
    Metric("hd95", "HD95 in {unit}", "{unit}", "lower", hd95),
    Metric("assd", "ASSD in {unit}", "{unit}", "lower", assd),
    Metric("nsd", "NSD at {tolerance} {unit}", "", "higher", nsd, tolerant=True),
)


def mask_scores(
    mask: Tensor,
    label: Tensor,
    spacing: Sequence[float],
    dice: Sequence[float],
    labels: Mapping[int, str],
    of: tuple[str, str, str],
    scoring: Scoring,
) -> list[CaseScore]:
    """The scores of one case's classes, the background left out.

    Args:
        mask: predicted class indices, (H, W) or (H, W, D).
        label: true class indices of the same shape.
        spacing: size of a voxel along each axis of the masks.
        dice: of the classes 1, 2, ...
        labels: index -> name of the class.
        of: (site, split, case), recorded in the scores.
        scoring: the further metrics.
    """
    return [
        CaseScore(*of, labels[index], value, **_further(mask, label, index, spacing, scoring))
        for index, value in enumerate(dice, start=1)
    ]


def _further(mask: Tensor, label: Tensor, index: int, spacing: Sequence[float], scoring: Scoring) -> dict[str, Any]:
    """The further metrics of one class, as fields of its score."""
    if not scoring.metrics:
        return {}
    prediction, truth = ((volume == index).numpy() for volume in (mask, label))
    pair = MaskPair(prediction, truth, spacing, scoring.nsd_tolerance)
    return {"others": {name: MASK_METRICS[name].of(pair) for name in scoring.metrics}, "empty": pair.empty}

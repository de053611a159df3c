"""A case as the network's input, and the way back to the file's own grid.

Axes are only flipped and permuted and slices padded, never resampled, so a mask comes out on the grid of the NIfTI file
that went in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, SpatialPad
from nibabel.affines import voxel_sizes
from torch import Tensor

from fedpeft.config.preprocessing import Preprocessing
from fedpeft.data.datalist import Case
from fedpeft.data.found import VALUES
from fedpeft.data.volumes.nifti import Grid, read_nifti, write_mask
from fedpeft.data.volumes.normalise import Statistics, apply_window, normalise, statistics_of

AXES = (("L", "R"), ("P", "A"), ("I", "S"))
TOLERANCE = 1e-3
# What normalised a volume, in words.
NORMALISED_BY = {
    "site": "the site's own statistics",
    "volume": "the volume's own statistics",
    "constants": "published constants",
}


@dataclass(frozen=True)
class Volume:
    """One case in canonical axes.

    Attributes:
        case: its name.
        image: (H, W, D) float32, normalised; slices lie along D.
        label: (H, W, D) uint8, or None.
        spacing: millimetres per voxel along H, W and D.
        normalised: whose statistics were used, "site" or "volume", or "constants".
        statistics: those statistics; None for constants.
        grid: grid of the image file.
        affine: (4, 4) float64 of the canonical axes.
        content: where the file's voxels are along H and W; the rest is padding up to the canvas.
        preprocessing: what was done, and what is still to be done with stacks of its slices.
    """

    case: str
    image: Tensor
    label: Tensor | None
    spacing: tuple[float, float, float]
    normalised: str
    statistics: Statistics | None
    grid: Grid
    affine: np.ndarray
    content: tuple[slice, slice] = (slice(None), slice(None))
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


def read_volume(case: Case, labels: Mapping[int, str], preprocessing: Preprocessing) -> Volume:
    """Read, check, normalise, orient and pad one case.

    Args:
        case: its files; its statistics, if any, are used where the preprocessing's scope is "site" and has no constants
            of the case's site.
        labels: index -> name; a label file may contain only these indices.
        preprocessing: orientation, normalisation and canvas; the rest is done with stacks of slices.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is unreadable or not three-dimensional, intensities are not finite or constant, the label
            has another shape or affine than the image or a value outside ``labels``, or slices are larger than the
            canvas. The message names the file.
    """
    image, grid = read_image(case.image, case.channel)
    label = _read_label(case.label, case.image, grid, labels) if case.label else None
    scope, statistics, scores = _normalised(case, image, preprocessing)
    canonical = _orient(scores, grid.affine, preprocessing.orientation)
    classes = None if label is None else _orient(label, grid.affine, preprocessing.orientation)
    content = (slice(None), slice(None))
    if preprocessing.canvas is not None:
        content = _centre(case.image, tuple(canonical.shape[:2]), preprocessing.canvas)
        canonical = _pad(canonical, preprocessing.canvas, float(canonical.min()))
        classes = None if classes is None else _pad(classes, preprocessing.canvas, 0)
    height, width, depth = (float(size) for size in voxel_sizes(canonical.affine.numpy()))
    return Volume(
        case=case.case,
        image=canonical.as_tensor().contiguous(),
        label=None if classes is None else classes.as_tensor().contiguous(),
        spacing=(height, width, depth),
        normalised=scope,
        statistics=statistics,
        grid=grid,
        affine=canonical.affine.numpy().astype(np.float64),
        content=content,
        preprocessing=preprocessing,
    )


def read_image(path: Path, channel: int | None = None) -> tuple[np.ndarray, Grid]:
    """An image's stored intensities in the file's axes; of one channel where the file has four axes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is unreadable, not three-dimensional, not finite or constant.
    """
    image, grid = read_nifti(path, channel)
    if not np.isfinite(image).all():
        count = image.size - int(np.isfinite(image).sum())
        raise ValueError(f"{path}: {count} voxels are NaN or infinite, expected finite intensities; export it again")
    if image.min() == image.max():
        raise ValueError(f"{path}: every voxel is {image.flat[0]}, expected an image; export it again")
    return image.astype(np.float32), grid


def site_statistics(
    cases: Sequence[Case], preprocessing: Preprocessing, before_read: Callable[[Case], None] = lambda case: None
) -> Statistics:
    """Statistics of a site's training images, which its datalist stores.

    Args:
        cases: the training cases, and no others.
        preprocessing: which voxels count, and whether they are clipped to percentiles.
        before_read: called with each case before its image is read.

    Raises:
        FileNotFoundError, ValueError: a file is faulty, or there is no variation.
    """

    def image(case: Case) -> np.ndarray:
        before_read(case)
        return read_image(case.image)[0]

    return statistics_of(map(image, cases), preprocessing)


def to_original_grid(mask: Tensor | np.ndarray, volume: Volume) -> np.ndarray:
    """Undo the canvas and the orientation of a mask.

    Args:
        mask: (H, W, D) integers in the volume's canonical axes.
        volume: which the mask belongs to.

    Returns:
        uint8 in the shape and axes of the image file.

    Raises:
        ValueError: the mask's shape is not the volume's.
    """
    if tuple(mask.shape) != tuple(volume.image.shape):
        raise ValueError(f"{volume.case}: mask has shape {tuple(mask.shape)}, expected {tuple(volume.image.shape)}")
    array = torch.as_tensor(mask).to(torch.uint8)[volume.content]
    codes = "".join(nibabel.aff2axcodes(volume.grid.affine))
    return np.ascontiguousarray(_orient(array, volume.affine, codes).as_tensor().numpy())


def save_mask(path: str | Path, mask: Tensor | np.ndarray, volume: Volume) -> None:
    """Write a mask atomically as uint8 NIfTI with the image's own affine and header geometry.

    Args:
        path: .nii or .nii.gz in an existing folder.
        mask: (H, W, D) integers in the volume's canonical axes.
        volume: which the mask belongs to.

    Raises:
        ValueError: the mask's shape is not the volume's, or the name is not a NIfTI file's.
    """
    write_mask(path, to_original_grid(mask, volume), volume.grid)


def _orient(array: np.ndarray | Tensor, affine: np.ndarray, codes: str) -> MetaTensor:
    tensor = MetaTensor(torch.as_tensor(np.ascontiguousarray(array))[None], affine=torch.as_tensor(affine))
    return Orientation(axcodes=codes, labels=AXES)(tensor)[0]


def _pad(canonical: MetaTensor, canvas: tuple[int, int], value: float) -> MetaTensor:
    # SpatialPad adapts the affine, so a voxel keeps its place in the body.
    return SpatialPad((*canvas, -1), value=value)(canonical[None])[0]


def _centre(path: Path, size: tuple[int, int], canvas: tuple[int, int]) -> tuple[slice, slice]:
    """Where slices of ``size`` are after ``_pad`` has centred them on the canvas."""
    if size[0] > canvas[0] or size[1] > canvas[1]:
        raise ValueError(
            f"{path}: slices have {size[0]} x {size[1]} voxels, the data set's canvas {canvas[0]} x {canvas[1]}; bring "
            "the file to the data set's own resolution, or prepare it as another data set"
        )
    starts = [(full - part) // 2 for full, part in zip(canvas, size, strict=True)]
    return slice(starts[0], starts[0] + size[0]), slice(starts[1], starts[1] + size[1])


def _normalised(
    case: Case, image: np.ndarray, preprocessing: Preprocessing
) -> tuple[str, Statistics | None, np.ndarray]:
    """What normalised an image, its statistics, and the outcome: constants first, then the site's, then its own."""
    if (window := preprocessing.window(case.site)) is not None:
        return "constants", None, apply_window(image, window, preprocessing)
    if preprocessing.scope == "site" and case.statistics is not None:
        return "site", case.statistics, normalise(image, case.statistics, preprocessing)
    statistics = _statistics(case.image, image, preprocessing)
    return "volume", statistics, normalise(image, statistics, preprocessing)


def _statistics(path: Path, image: np.ndarray, preprocessing: Preprocessing) -> Statistics:
    try:
        return statistics_of([image], preprocessing)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_label(path: Path, image: Path, grid: Grid, labels: Mapping[int, str]) -> np.ndarray:
    label, label_grid = read_nifti(path)
    if label.shape != grid.shape:
        raise ValueError(f"{path}: shape is {label.shape}, its image {image} has {grid.shape}; export both again")
    gap = float(np.abs(label_grid.affine - grid.affine).max())
    if gap > TOLERANCE:
        raise ValueError(
            f"{path}: its affine differs from that of {image} by up to {gap:.4g}, expected {TOLERANCE:g} at "
            "most; outline or resample the label on the image's grid"
        )
    values = np.unique(label)
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        odd = [float(value) for value in values if not np.isfinite(value) or value != np.rint(value)][:8]
        raise ValueError(f"{path}{VALUES}such as {odd}, expected whole numbers; threshold the label")
    unknown = [int(value) for value in values if int(value) not in labels]
    if unknown:
        raise ValueError(
            f"{path}{VALUES}{unknown[:8]} are not in the table {dict(labels)}; add them to the labels or "
            "correct the file"
        )
    return label.astype(np.uint8)

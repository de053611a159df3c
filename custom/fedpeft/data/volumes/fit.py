"""Fit slices of any size and spacing to the network's square input, and undo it.

With "aspect", the longer physical edge fills the square and the shorter one is padded at both ends, so a circle in the
body stays a circle. With "stretch", which the published codes do, slices are stretched to the square.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import zoom
from torch import Tensor
from torch.nn import functional

MODES = ("image", "label")


def fit(slices: Tensor, spacing: tuple[float, float], size: int, mode: str) -> Tensor:
    """Scale and pad slices to a square.

    Args:
        slices: (N, H, W); float for "image", any integer type for "label".
        spacing: millimetres per pixel along H and W.
        size: edge of the square in pixels.
        mode: "image": bilinear, antialiased when shrinking, padded with the minimum of ``slices``; "label": nearest,
            padded with 0.

    Returns:
        (N, size, size) in the type of ``slices``.

    Raises:
        ValueError: the mode is unknown.
    """
    _check(mode)
    height, width = content_size((slices.shape[1], slices.shape[2]), spacing, size)
    batch = slices[:, None]
    if mode == "image":
        scaled = functional.interpolate(batch, (height, width), mode="bilinear", align_corners=False, antialias=True)
        value = float(slices.min())
    else:
        scaled = functional.interpolate(batch.to(torch.uint8), (height, width), mode="nearest-exact").to(slices.dtype)
        value = 0.0
    top, left = (size - height) // 2, (size - width) // 2
    return functional.pad(scaled, (left, size - width - left, top, size - height - top), value=value)[:, 0]


def unfit(logits: Tensor, native: tuple[int, int], spacing: tuple[float, float]) -> Tensor:
    """Undo ``fit`` for the network's logits, so that the argmax is taken at native resolution.

    Args:
        logits: (N, C, size, size) float.
        native: H and W of the volume's slices.
        spacing: millimetres per pixel along H and W, as given to ``fit``.

    Returns:
        (N, C, H, W), bilinear.
    """
    size = logits.shape[-1]
    height, width = content_size(native, spacing, size)
    top, left = (size - height) // 2, (size - width) // 2
    content = logits[..., top : top + height, left : left + width]
    return functional.interpolate(content, native, mode="bilinear", align_corners=False, antialias=True)


def content_size(native: tuple[int, int], spacing: tuple[float, float], size: int) -> tuple[int, int]:
    """Height and width in pixels of a slice's content inside the square, each 1 to ``size``."""
    height, width = native[0] * spacing[0], native[1] * spacing[1]
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def stretch(slices: Tensor, spacing: tuple[float, float], size: int, mode: str) -> Tensor:
    """Stretch slices to a square as ``scipy.ndimage.zoom`` does, corner to corner.

    For some sizes (512 to 224 pixels is one), rounding places scipy's last row and column outside of the slice: they
    have the minimum of ``slices`` here, as they have in the published codes where that is 0, and label 0.

    Args:
        slices: (N, H, W); float for "image", any integer type for "label".
        spacing: not used.
        size: edge of the square in pixels.
        mode: "image": cubic spline, which may exceed the slices' range; "label": nearest.

    Returns:
        (N, size, size) in the type of ``slices``.

    Raises:
        ValueError: the mode is unknown.
    """
    _check(mode)
    if tuple(slices.shape[1:]) == (size, size):
        return slices
    if mode == "image":
        low = slices.min()
        return _splined(slices - low, (size, size)) + low
    factors = size / slices.shape[1], size / slices.shape[2]
    return torch.from_numpy(np.stack([zoom(label, factors, order=0) for label in slices.numpy()]))


def unstretch(values: Tensor, native: tuple[int, int], spacing: tuple[float, float]) -> Tensor:
    """Undo ``stretch`` for probabilities.

    Args:
        values: (N, C, size, size) float.
        native: H and W of the volume's slices.
        spacing: not used.

    Returns:
        (N, C, H, W), cubic spline.
    """
    return values if tuple(values.shape[2:]) == native else _splined(values, native)


@dataclass(frozen=True)
class Fit:
    """A way into the network's square and back.

    Attributes:
        square: slices -> square, see ``fit``.
        native: logits or probabilities -> native resolution, see ``unfit``.
        of_probabilities: whether ``native`` takes probabilities, as the published codes do, instead of logits.
        fills: whether slices of this size, spacing and square leave no padding.
    """

    square: Callable[[Tensor, tuple[float, float], int, str], Tensor]
    native: Callable[[Tensor, tuple[int, int], tuple[float, float]], Tensor]
    of_probabilities: bool
    fills: Callable[[tuple[int, int], tuple[float, float], int], bool]


# ``Preprocessing.fit`` -> what it does.
FITS = {
    "aspect": Fit(fit, unfit, False, lambda native, spacing, size: content_size(native, spacing, size) == (size, size)),
    "stretch": Fit(stretch, unstretch, True, lambda native, spacing, size: True),
}


def _check(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")


def _splined(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (..., H, W) resized by cubic splines; 0 where scipy has its constant."""
    down, across = (_spline(old, new) for old, new in zip(images.shape[-2:], size, strict=True))
    # By numpy, since autocast would round torch's products.
    return torch.from_numpy(down @ images.numpy() @ across.T)


@lru_cache(maxsize=32)
def _spline(old: int, new: int) -> np.ndarray:
    """The matrix (new, old) of ``scipy.ndimage.zoom`` along one axis, float32.

    The spline is linear in the image and separable, so two products do what takes scipy tens of milliseconds for each
    slice and class.
    """
    return zoom(np.eye(old), (new / old, 1.0), order=3).astype(np.float32)

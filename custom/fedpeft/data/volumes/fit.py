"""Fit slices of any size and spacing to the network's square input, and undo it.

With "aspect", the longer physical edge fills the square and the shorter one is padded at both ends, so a circle in the
body stays a circle. With "stretch", which the published codes do, slices are stretched to the square.
"""

from collections.abc import Callable
from dataclasses import dataclass

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

    Rounding may place scipy's last row or column outside of the slice; it then has the minimum of ``slices``, or 0.

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
    order, outside = (3, float(slices.min())) if mode == "image" else (0, 0.0)
    return _zoomed(slices, (size, size), order, outside)


def unstretch(values: Tensor, native: tuple[int, int], spacing: tuple[float, float]) -> Tensor:
    """Undo ``stretch`` for probabilities.

    Args:
        values: (N, C, size, size) float.
        native: H and W of the volume's slices.
        spacing: not used.

    Returns:
        (N, C, H, W), cubic spline.
    """
    return _zoomed(values.flatten(0, 1), native, 3, 0.0).unflatten(0, values.shape[:2])


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


def _zoomed(slices: Tensor, size: tuple[int, int], order: int, outside: float) -> Tensor:
    if tuple(slices.shape[1:]) == size:
        return slices
    factors = size[0] / slices.shape[1], size[1] / slices.shape[2]
    found = [zoom(image, factors, order=order, cval=outside) for image in slices.numpy()]
    return torch.from_numpy(np.stack(found))

"""Fit slices of any size and spacing to the network's square input, and undo it.

The longer physical edge fills the square, the shorter one is padded at both ends, so a circle in the body stays a
circle.
"""

import torch
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
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
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

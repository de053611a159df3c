"""Turns, flips and rotations that several augmentations share."""

import numpy as np
import torch
from scipy.ndimage import rotate
from torch import Tensor


def turned(stack: Tensor, turns: int, flip: int | None) -> Tensor:
    """A stack (N, size, size) after quarter turns and a flip along axis 0 (down) or 1 (across) of its slices."""
    stack = torch.rot90(stack, turns, (1, 2)) if turns else stack
    return stack if flip is None else stack.flip(1 + flip)


def rotated(image: Tensor, label: Tensor, angle: int) -> tuple[Tensor, Tensor]:
    """Image and label, each (N, size, size), rotated by degrees about their middle.

    Each pixel is that of the nearest one, and 0 from outside, as ``scipy.ndimage.rotate`` with order 0 does it. Which
    one it is, is the same for all slices, so scipy finds it once.
    """
    size = image.shape[-1]
    places = np.arange(size * size, dtype=np.int32).reshape(size, size)
    found = torch.from_numpy(rotate(places, angle, order=0, reshape=False, cval=-1).ravel()).long()
    outside = found < 0
    moved = (each.flatten(1)[:, found.clamp(min=0)].masked_fill(outside, 0) for each in (image, label))
    first, second = (each.unflatten(1, (size, size)) for each in moved)
    return first, second

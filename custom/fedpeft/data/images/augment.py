"""Augmentation of one picture: what a dermatoscope, a turn of the hand or a lamp would change.

One of the eight symmetries of the square, a crop of most of the area, brightness and contrast. A few tensor operations:
MONAI's own transforms also track an affine matrix, which pictures do not have, and seed a Mersenne twister for each
picture, which alone takes as long as all of this.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Shares of the picture's area that a crop keeps, and factors.
AREA = (0.8, 1.0)
BRIGHTNESS = (0.8, 1.2)
CONTRAST = (0.8, 1.2)


def augment_picture(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """Augment one picture.

    Args:
        picture: (3, side, side) uint8; not changed.
        rng: determines everything.

    Returns:
        (3, side, side) float32, 0 to 1.
    """
    turns, mirrored = divmod(int(rng.integers(8)), 2)
    picture = torch.rot90(picture, turns, (1, 2))
    values = _crop(picture.flip(2) if mirrored else picture, rng).float()
    # ((x - mean) contrast + mean) brightness / 255, as one product and one sum.
    contrast, brightness = rng.uniform(*CONTRAST), rng.uniform(*BRIGHTNESS) / 255
    shift = values.mean() * ((1 - contrast) * brightness)
    return values.mul_(contrast * brightness).add_(shift).clamp_(0.0, 1.0)


def _crop(picture: Tensor, rng: np.random.Generator) -> Tensor:
    side = picture.shape[-1]
    edge = max(1, round(side * rng.uniform(*AREA) ** 0.5))
    top, left = rng.integers(side - edge + 1, size=2)
    part = picture[None, :, top : top + edge, left : left + edge]
    # As bytes, for which the antialiased kernel is the fast one; there is nothing to antialias.
    return functional.interpolate(part, (side, side), mode="bilinear", align_corners=False, antialias=True)[0]

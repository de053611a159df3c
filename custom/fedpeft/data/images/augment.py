"""Augmentation of one image by what another camera, angle or light would change.

It applies one of the eight symmetries of the square, a crop of most of the area, brightness and contrast, in a few
tensor operations. MONAI's own transforms also track an affine matrix, which images do not have, and seed a Mersenne
twister for each image, which alone takes as long as all of this.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# AREA is the share of the image's area that a crop keeps; the others are factors.
AREA = (0.8, 1.0)
BRIGHTNESS = (0.8, 1.2)
CONTRAST = (0.8, 1.2)


def augment_image(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Augment one image.

    Args:
        image: (3, size, size) uint8; not changed.
        rng: determines the augmentation.

    Returns:
        (3, size, size) float32, 0 to 1.
    """
    turns, mirrored = divmod(int(rng.integers(8)), 2)
    image = torch.rot90(image, turns, (1, 2))
    values = _crop(image.flip(2) if mirrored else image, rng).float()
    # ((x - mean) contrast + mean) brightness / 255, as one product and one sum.
    contrast, brightness = rng.uniform(*CONTRAST), rng.uniform(*BRIGHTNESS) / 255
    shift = values.mean() * ((1 - contrast) * brightness)
    return values.mul_(contrast * brightness).add_(shift).clamp_(0.0, 1.0)


def _crop(image: Tensor, rng: np.random.Generator) -> Tensor:
    size = image.shape[-1]
    edge = max(1, round(size * rng.uniform(*AREA) ** 0.5))
    top, left = rng.integers(size - edge + 1, size=2)
    part = image[None, :, top : top + edge, left : left + edge]
    # For bytes the antialiased kernel is the faster one; antialiasing itself changes nothing when enlarging.
    return functional.interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=True)[0]

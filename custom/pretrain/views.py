"""Two views of one image, which a self-supervised model learns to recognise as the same."""

from math import pi

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pretrain.shapes import Random

# WIDTH is the share of the image's width that a view shows; the others are factors: of the light, of each colour, and
# of contrast and saturation.
WIDTH = (0.55, 1.0)
LIGHT = (0.75, 1.33)
COLOUR = (0.93, 1.07)
CONTRAST = (0.7, 1.4)


def view(images: Tensor, seed: int) -> Tensor:
    """A view of every image: turned by any angle, perhaps mirrored, cropped, in other light, perhaps blurred.

    Colours change little, because in medical images they carry the diagnosis.

    Args:
        images: (B, 3, image_size, image_size), 0 to 1; not changed.
        seed: the same seed gives the same views.

    Returns:
        The same shape, 0 to 1.
    """
    random = Random(seed, len(images), images.shape[-1])
    return _lit(random, _placed(random, images))


def _placed(random: Random, images: Tensor) -> Tensor:
    """Turn, mirror and crop the images; pixels outside an image are reflected ones from inside."""
    angle, width, mirror = random.uniform(0, 2 * pi), random.uniform(*WIDTH), random.sign()
    x, y = ((1 - width) * random.uniform(-1, 1) for _ in range(2))
    affine = [
        torch.cat([width * angle.cos(), -mirror * width * angle.sin(), x], dim=2),
        torch.cat([width * angle.sin(), mirror * width * angle.cos(), y], dim=2),
    ]
    grid = affine_grid(torch.cat(affine, dim=1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _lit(random: Random, images: Tensor) -> Tensor:
    def factor(low: float, high: float) -> Tensor:
        return random.log_uniform(low, high).unsqueeze(1)

    tint = torch.cat([factor(*COLOUR) for _ in range(3)], dim=1)
    images = images * factor(*LIGHT) * tint
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * factor(*CONTRAST)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * factor(*CONTRAST)
    down, across = (random.blur(0.2, 1.2).unsqueeze(1) for _ in range(2))
    return (down @ images @ across.mT).clamp(0, 1)

"""Two views of one picture, which a self-supervised model is to recognise as the same."""

from math import pi

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pretrain.shapes import Random

# Part of the picture's width that a view shows, and factors: of the light, of each colour, of contrast and saturation.
WIDTH = (0.55, 1.0)
LIGHT = (0.75, 1.33)
COLOUR = (0.93, 1.07)
CONTRAST = (0.7, 1.4)


def view(pictures: Tensor, seed: int) -> Tensor:
    """A view of every picture: turned by any angle, perhaps mirrored, a part of it, in other light, perhaps blurred.

    Colours change little, for in the pictures of medicine they carry the diagnosis.

    Args:
        pictures: (B, 3, side, side), 0 to 1; not changed.
        seed: the same seed gives the same views.

    Returns:
        The same shape, 0 to 1.
    """
    random = Random(seed, len(pictures), pictures.shape[-1])
    return _lit(random, _placed(random, pictures))


def _placed(random: Random, pictures: Tensor) -> Tensor:
    """Turned, mirrored and cropped; what lies outside of the picture is mirrored in."""
    angle, width, mirror = random.uniform(0, 2 * pi), random.uniform(*WIDTH), random.sign()
    x, y = ((1 - width) * random.uniform(-1, 1) for _ in range(2))
    rows = [
        torch.cat([width * angle.cos(), -mirror * width * angle.sin(), x], dim=2),
        torch.cat([width * angle.sin(), mirror * width * angle.cos(), y], dim=2),
    ]
    grid = affine_grid(torch.cat(rows, dim=1), list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def _lit(random: Random, pictures: Tensor) -> Tensor:
    def factor(low: float, high: float) -> Tensor:
        return random.log_uniform(low, high).unsqueeze(1)

    tint = torch.cat([factor(*COLOUR) for _ in range(3)], dim=1)
    pictures = pictures * factor(*LIGHT) * tint
    grey = pictures.mean(dim=1, keepdim=True)
    pictures = grey + (pictures - grey) * factor(*CONTRAST)
    mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
    pictures = mean + (pictures - mean) * factor(*CONTRAST)
    rows, columns = (random.blur(0.2, 1.2).unsqueeze(1) for _ in range(2))
    return (rows @ pictures @ columns.mT).clamp(0, 1)

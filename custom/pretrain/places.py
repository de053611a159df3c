"""The attributes of each place of a generated image: its surface, figure or ground, and its edges.

Every token learns to name them. The pixels of a place alone show its edges, so these are learnt first: a network that
has to name their direction learns textures and outlines many times sooner.
"""

from math import pi

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pretrain.colour_images import Kinds

DIRECTIONS = tuple(f"{180 * index / 8:g} degrees" for index in range(8))
# Root mean square of the grey level's change over two pixels, 0 to 1.
STEEPNESS = {"flat": 0.0, "gentle": 0.018, "steep": 0.045, "sharp": 0.11}


def of_place(kinds: Kinds) -> dict[str, tuple[str, ...]]:
    """A place's attributes and the names of their values."""
    return kinds.surface | {"shows": ("ground", "figure"), "direction": DIRECTIONS, "steepness": tuple(STEEPNESS)}


def places(pixels: Tensor, attributes: Tensor, inside: Tensor, patch: int) -> Tensor:
    """The attributes of every patch.

    Args:
        pixels: as ``pretrain.colour_images.draw`` gives them, (B, 3, image_size, image_size).
        attributes: its second part, (B, attributes).
        inside: its third part, (B, image_size, image_size).
        patch: height and width of a patch in pixels.

    Returns:
        (B, patches, attributes of a place) int64 in the order of ``of_place``; patches from left to right, then down.
    """
    figure = avg_pool2d(inside.float(), patch).flatten(1).gt(0.5)[..., None]
    of_figures, of_ground = attributes[:, None, 2:].chunk(2, dim=2)
    return torch.cat([torch.where(figure, of_figures, of_ground), figure.long(), _edges(pixels, patch)], dim=2)


def _edges(pixels: Tensor, patch: int) -> Tensor:
    """Direction and steepness of the grey level's strongest change in every patch, by its structure tensor."""
    grey = avg_pool2d(pixels.mean(dim=1), 3, stride=1, padding=1, count_include_pad=False)
    across, down = torch.zeros_like(grey), torch.zeros_like(grey)
    across[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    xx, yy, xy = (avg_pool2d(part, patch).flatten(1) for part in (across**2, down**2, across * down))
    angle = torch.atan2(2 * xy, xx - yy) / (2 * pi) % 1
    steepness = torch.bucketize((xx + yy).sqrt(), torch.tensor(list(STEEPNESS.values())[1:]))
    return torch.stack([(len(DIRECTIONS) * angle).long() % len(DIRECTIONS), steepness], dim=2)

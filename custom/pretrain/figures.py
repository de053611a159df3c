"""Figures and textures of the generated images, as functions of coordinates for a whole batch.

A figure's value is positive inside and about the distance to its edge for a radius of 1; a texture is between -1 and 1.
Pretraining never shows some of both: they measure how well the features fit something new.
"""

from collections.abc import Callable
from math import cos, pi, sin

import torch
from torch import Tensor

from pretrain.shapes import SHAPES, Random

Pattern = Callable[[Random, Tensor, Tensor], Tensor]
# Numbers of bumps along an image's edge, from coarse to fine grain.
GRAINS = (4, 6, 9, 13, 18)


def _ellipse(random: Random, u: Tensor, v: Tensor) -> Tensor:
    return SHAPES["ellipse"](random, u, v, torch.ones(random.count, 1, 1))


def _tube(random: Random, u: Tensor, v: Tensor) -> Tensor:
    return SHAPES["tube"](random, u, v, random.uniform(0.25, 0.4))


def _regular(corners: int) -> Pattern:
    """A regular polygon, slightly stretched."""

    def polygon(random: Random, u: Tensor, v: Tensor) -> Tensor:
        v = v * random.uniform(1, 1.4)
        turns = [2 * pi * corner / corners for corner in range(corners)]
        distances = torch.stack([u * cos(turn) + v * sin(turn) for turn in turns])
        return 0.75 - distances.amax(dim=0)

    return polygon


def _ring(random: Random, u: Tensor, v: Tensor) -> Tensor:
    return random.uniform(0.15, 0.3) - ((u * u + (v * random.uniform(1, 1.4)) ** 2).sqrt() - 0.75).abs()


def _cross(random: Random, u: Tensor, v: Tensor) -> Tensor:
    width = random.uniform(0.2, 0.35)
    u, v = u.abs(), v.abs()
    return torch.maximum(torch.minimum(width - u, 1 - v), torch.minimum(width - v, 1 - u))


def _star(random: Random, u: Tensor, v: Tensor) -> Tensor:
    points = random.number(3) + 4
    return 0.75 + 0.25 * torch.cos(points * torch.atan2(v, u)) - (u * u + v * v).sqrt()


def _crescent(random: Random, u: Tensor, v: Tensor) -> Tensor:
    shift = random.uniform(0.4, 0.7)
    return torch.minimum(1 - (u * u + v * v).sqrt(), ((u - shift) ** 2 + v * v).sqrt() - 0.8)


def _frame(random: Random, u: Tensor, v: Tensor) -> Tensor:
    return random.uniform(0.12, 0.2) - (torch.maximum(u.abs(), (v * random.uniform(1, 1.4)).abs()) - 0.7).abs()


FIGURES: dict[str, Pattern] = {
    "ellipse": _ellipse,
    "triangle": _regular(3),
    "square": _regular(4),
    "ring": _ring,
    "cross": _cross,
    "tube": _tube,
    "star": _star,
    "crescent": _crescent,
    "frame": _frame,
}


def _grain(random: Random, u: Tensor, v: Tensor) -> Tensor:
    """A random field whose bumps are as wide as the coordinates' periods."""
    fields = torch.stack([random.smooth(knots) for knots in GRAINS])
    width = u.amax(dim=(1, 2), keepdim=True) - u.amin(dim=(1, 2), keepdim=True)
    nearest = (torch.tensor(GRAINS)[:, None, None, None] - width / pi).abs().argmin(dim=0, keepdim=True)
    return torch.tanh(fields.gather(0, nearest.expand(1, *u.shape))[0])


def _waves(random: Random, u: Tensor, v: Tensor) -> Tensor:
    return torch.sin(u + random.uniform(1.5, 2.5) * torch.sin(0.5 * v))


def _bricks(random: Random, u: Tensor, v: Tensor) -> Tensor:
    course = torch.floor(v / pi)
    return 1 - 2 * torch.maximum(torch.cos(u + pi * course), torch.cos(2 * v)).clamp(min=0) ** 4


# Functions of coordinates in which one period is 2 pi.
TEXTURES: dict[str, Pattern] = {
    "stripes": lambda random, u, v: torch.sin(u),
    "checks": lambda random, u, v: torch.tanh(4 * torch.sin(u) * torch.sin(v)),
    "dots": lambda random, u, v: torch.tanh(3 * (torch.cos(u) + torch.cos(v) - 0.8)),
    "circles": lambda random, u, v: torch.sin((u * u + v * v).sqrt()),
    "grain": _grain,
    "waves": _waves,
    "bricks": _bricks,
    "spokes": lambda random, u, v: torch.sin((random.number(6) + 6) * torch.atan2(v, u)),
}

"""Random numbers for a whole batch, and the outlines of bodies and objects as implicit functions, positive inside."""

from copy import copy
from functools import cache
from math import log, pi

import torch
from torch import Tensor


class Random:
    """Random numbers for every image of a batch, from one seed.

    Args:
        seed: the batch's seed.
        count: number of images.
        image_size: height and width of an image in pixels.
    """

    def __init__(self, seed: int, count: int, image_size: int) -> None:
        self.count, self.image_size = count, image_size
        self._generator = torch.Generator().manual_seed(seed)

    def some(self, share: float) -> tuple[Tensor, "Random"]:
        """Indices of about that share of the images, and the random numbers for them."""
        chosen = self.chance(share).flatten().nonzero().flatten()
        return chosen, self.part(len(chosen))

    def part(self, count: int) -> "Random":
        """The random numbers for ``count`` of the images, from the same generator."""
        part = copy(self)
        part.count = count
        return part

    def uniform(self, low: float, high: float) -> Tensor:
        """One number per image, (count, 1, 1)."""
        return low + (high - low) * torch.rand(self.count, 1, 1, generator=self._generator)

    def log_uniform(self, low: float, high: float) -> Tensor:
        """One number per image whose logarithm is uniform, (count, 1, 1)."""
        return self.uniform(log(low), log(high)).exp()

    def chance(self, share: float) -> Tensor:
        """True for a share of the images, (count, 1, 1)."""
        return self.uniform(0, 1) < share

    def sign(self) -> Tensor:
        """1 or -1 per image, (count, 1, 1)."""
        return torch.where(self.chance(0.5), 1.0, -1.0)

    def number(self, below: int) -> Tensor:
        """A whole number from 0 to ``below`` - 1 per image, (count, 1, 1) int64."""
        return torch.randint(below, (self.count, 1, 1), generator=self._generator)

    def white(self) -> Tensor:
        """Independent normal pixels, (count, image_size, image_size)."""
        return torch.randn(self.count, self.image_size, self.image_size, generator=self._generator)

    def smooth(self, knots: int) -> Tensor:
        """A normal random field that varies over image_size / knots pixels, unit variance, (count, size, size)."""
        basis = _basis(knots, self.image_size)
        return basis @ torch.randn(self.count, knots + 4, knots + 4, generator=self._generator) @ basis.T

    def blur(self, low: float, high: float) -> Tensor:
        """Gaussian smoothing along one axis, by ``low`` to ``high`` pixels: matrices (count, size, size)."""
        place = torch.arange(self.image_size, dtype=torch.float32)
        weight = torch.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * self.log_uniform(low, high) ** 2))
        return weight / weight.sum(dim=2, keepdim=True)


@cache
def _basis(knots: int, image_size: int) -> Tensor:
    """Gaussian bumps at ``knots`` places and two more beyond each border, unit norm per pixel, (size, knots + 4)."""
    pixel = (torch.arange(image_size) + 0.5) * knots / image_size
    bump = torch.exp(-((pixel[:, None] - torch.arange(-2, knots + 2) - 0.5) ** 2) / (2 * 0.6**2))
    return bump / bump.norm(dim=1, keepdim=True)


def ellipse(random: Random, u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """Roughly the distance to the edge of an ellipse."""
    a, b = _turned(random, u, v)
    return size * (1 + _roughness(random)) - (a * a + b * b).sqrt()


def _polygon(random: Random, u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """Roughly the distance to the edge of a convex polygon of three to six sides."""
    k = torch.arange(6)[None, :, None]
    turn = 2 * pi * k / torch.floor(random.uniform(3, 7)) + random.uniform(-0.3, 0.3) * (k % 3 - 1)
    normals = torch.cat([turn.cos(), turn.sin()], dim=2)
    pixels = torch.stack(_turned(random, u, v), dim=1).flatten(2)
    return size * (0.8 + _roughness(random)) - (normals @ pixels).amax(dim=1).view_as(u)


def _tube(random: Random, u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """Roughly the distance to the edge of a bent tube that tapers: a quadratic curve, sampled at 24 points."""
    t = torch.linspace(-1, 1, 24)[None, :, None]
    angle, length = random.uniform(0, 2 * pi), random.uniform(0.3, 0.8)
    along, across = length * t, random.uniform(-0.6, 0.6) * length * t * t
    pu, pv = along * angle.cos() - across * angle.sin(), along * angle.sin() + across * angle.cos()
    width = size * (1 + random.uniform(-0.6, 0.6) * t)
    points = torch.cat([-2 * pu, -2 * pv, pu * pu + pv * pv - width * width], dim=2)
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=1).flatten(2)
    # The excess |pixel - point|^2 - width^2, divided by its slope at the surface, is about the distance to it.
    return -((points @ pixels).amin(dim=1).view_as(u) + u * u + v * v) / (2 * size)


def _turned(random: Random, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates turned and squeezed along one axis."""
    angle = random.uniform(0, pi)
    a, b = u * angle.cos() + v * angle.sin(), v * angle.cos() - u * angle.sin()
    return a, b / random.uniform(0.5, 1)


def _roughness(random: Random) -> Tensor:
    """Deviation of an outline from its shape, as a share of the radius."""
    return random.uniform(0, 0.25) * random.smooth(8) + random.uniform(0, 0.12) * random.smooth(20)


def coordinates(random: Random) -> tuple[Tensor, Tensor]:
    """Pixel centres moved, turned, scaled and warped so that the body is the unit disc."""
    line = (torch.arange(random.image_size) + 0.5) * 2 / random.image_size - 1
    x = line[None, None, :] - random.uniform(-0.2, 0.2) + random.uniform(0, 0.06) * random.smooth(5)
    y = line[None, :, None] - random.uniform(-0.2, 0.2) + random.uniform(0, 0.06) * random.smooth(5)
    # One body in ten fills the frame, as in a cropped volume; small ones resemble a body's first and last slices.
    size = torch.where(random.chance(0.1), random.uniform(1.3, 2.0), random.uniform(0.5, 1.1))
    angle = random.uniform(0, pi)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    return u / size, v / (size * random.uniform(0.65, 1))


SHAPES = {"ellipse": ellipse, "polygon": _polygon, "tube": _tube}

"""Synthetic colour images with attributes, on which ``vit_tiny`` is pretrained.

An image shows one to three figures of one kind with one surface, on a ground with another. A surface is a texture,
coarse or fine, faint or strong, of some colour. The model learns to name these attributes, so its features encode
outlines, textures and colours. No image resembles a medical one.

The generator shares nothing with the data on which methods are compared.
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from pretrain.figures import FIGURES, TEXTURES, Pattern
from pretrain.shapes import Random

HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
SCALES = ("coarse", "medium", "fine")
CONTRASTS = ("faint", "clear", "strong")
COUNTS = ("one", "two", "three")


@dataclass(frozen=True)
class Kinds:
    """The figures and textures that an image may show; keys of ``FIGURES`` and ``TEXTURES``."""

    figures: tuple[str, ...]
    textures: tuple[str, ...]

    @property
    def surface(self) -> dict[str, tuple[str, ...]]:
        """A surface's attributes and the names of their values."""
        return {"texture": self.textures, "hue": HUES, "scale": SCALES, "contrast": CONTRASTS}

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """An image's attributes: kind and number of figures, their surface, the ground's."""
        ground = {f"{name} of the ground": values for name, values in self.surface.items()}
        return {"figure": self.figures, "number": COUNTS} | self.surface | ground


TRAINED = Kinds(
    ("ellipse", "triangle", "square", "ring", "cross", "tube"), ("stripes", "checks", "dots", "circles", "grain")
)
# Pretraining never shows them.
UNSEEN = Kinds(("star", "crescent", "frame"), ("waves", "bricks", "spokes"))


def draw(count: int, seed: int, image_size: int = 64, kinds: Kinds = TRAINED) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of images, their attributes, and where the figures are.

    Args:
        count: number of images.
        seed: the same seed gives the same batch.
        image_size: height and width in pixels.
        kinds: figures and textures that they may show.

    Returns:
        Red, green and blue (count, 3, image_size, image_size), 0 to 1; indices of the attributes' values, (count,
        attributes) int64 in the order of ``kinds.attributes``; True inside a figure, (count, image_size, image_size).
    """
    random = Random(seed, count, image_size)
    figure, number = random.number(len(kinds.figures)), random.number(len(COUNTS))
    value = random.uniform(0.35, 0.95)
    # Figures are always brighter or darker than the ground, so that they show even in the same hue.
    apart = 0.35 + (value - 0.35 + random.uniform(0.2, 0.4)) % 0.6
    filling, of_figures = _surface(random, kinds, apart)
    ground, of_ground = _surface(random, kinds, value)
    inside = _figures(random, kinds, figure, number)
    alpha = torch.sigmoid(inside / random.log_uniform(0.01, 0.1)).unsqueeze(1)
    attributes = [item.flatten(1) for item in (figure, number, *of_figures, *of_ground)]
    return _acquired(random, ground + alpha * (filling - ground)), torch.cat(attributes, dim=1), inside > 0


def _surface(random: Random, kinds: Kinds, value: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Colours (count, 3, size, size) of a mean brightness, and the attributes in the order of ``kinds.surface``."""
    texture, scale, contrast = (random.number(len(names)) for names in (kinds.textures, SCALES, CONTRASTS))
    hue = random.uniform(0, 1)
    # An image has two and a half to nine periods. The ranges of the three scales, and of the contrasts, are adjacent.
    periods = 8 * 3.5 ** ((scale + random.uniform(0, 1)) / len(SCALES))
    strength = 0.06 * 7 ** ((contrast + random.uniform(0, 1)) / len(CONTRASTS))
    pattern = _texture(random, kinds, texture, periods)
    sextant = (6 * hue + 0.5).long() % len(HUES)
    return _coloured(random, pattern, hue, value, strength), [texture, sextant, scale, contrast]


def _figures(random: Random, kinds: Kinds, figure: Tensor, number: Tensor) -> Tensor:
    """``number`` + 1 figures of one kind around the centre, one alone larger; positive inside, (count, size, size)."""
    x, y = _plane(random)
    alone = number == 0
    size = torch.where(alone, random.log_uniform(0.35, 0.85), random.log_uniform(0.22, 0.4))
    away = torch.where(alone, random.uniform(0, 0.35), random.uniform(0.45, 0.6))
    turn, inside = random.uniform(0, 2 * pi), torch.full_like(x, -1.0)
    for index in range(len(COUNTS)):
        place = turn + 2 * pi * index / (number + 1)
        u, v = _turned(random, (x - away * place.cos()) / size, (y - away * place.sin()) / size)
        one = size * _of_kind(random, FIGURES, kinds.figures, figure, u, v)
        inside = torch.where(number >= index, torch.maximum(inside, one), inside)
    return inside


def _texture(random: Random, kinds: Kinds, kind: Tensor, periods: Tensor) -> Tensor:
    """Textures of any direction, slightly bent, (count, image_size, image_size)."""
    x, y = _plane(random)
    bent = x + random.uniform(0, 0.06) * random.smooth(4)
    u, v = _turned(random, bent - random.uniform(-0.5, 0.5), y - random.uniform(-0.5, 0.5))
    return _of_kind(random, TEXTURES, kinds.textures, kind, periods * u, periods * v)


def _of_kind(
    random: Random, table: dict[str, Pattern], names: tuple[str, ...], kind: Tensor, u: Tensor, v: Tensor
) -> Tensor:
    """Apply each image's own function to its coordinates."""
    found = torch.empty_like(u)
    for index, name in enumerate(names):
        chosen = (kind.flatten() == index).nonzero().flatten()
        found[chosen] = table[name](random.part(len(chosen)), u[chosen], v[chosen])
    return found


def _plane(random: Random) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixels' centres, from -1 to 1."""
    line = (torch.arange(random.image_size) + 0.5) * 2 / random.image_size - 1
    shape = (random.count, random.image_size, random.image_size)
    return line.expand(shape), line[:, None].expand(shape)


def _turned(random: Random, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    angle = random.uniform(0, 2 * pi)
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def _coloured(random: Random, texture: Tensor, hue: Tensor, value: Tensor, strength: Tensor) -> Tensor:
    """Colours (count, 3, image_size, image_size) that a texture varies around a hue and a brightness, both 0 to 1."""
    hue = hue + random.uniform(-0.2, 0.2) * strength * texture
    saturation = (random.uniform(0.3, 0.9) + random.uniform(-0.6, 0.6) * strength * texture).clamp(0, 1)
    value = value + strength * texture
    # Smith 1978, hexcone model.
    sectors = [(shift + 6 * hue) % 6 for shift in (5, 3, 1)]
    shares = [torch.minimum(sector, 4 - sector).clamp(0, 1) for sector in sectors]
    return torch.stack([value * (1 - saturation * share) for share in shares], dim=1)


def _acquired(random: Random, image: Tensor) -> Tensor:
    """Apply a camera's effects: uneven light, a blur along each axis, and noise."""
    light = torch.exp(random.uniform(0, 0.2) * random.smooth(2)).unsqueeze(1)
    down, across = (random.blur(0.2, 0.8).unsqueeze(1) for _ in range(2))
    noise = torch.stack([random.white() for _ in range(3)], dim=1)
    return (down @ (image * light) @ across.mT + random.log_uniform(0.003, 0.03).unsqueeze(1) * noise).clamp(0, 1)

"""Synthetic grey slices with labels, on which ``sam_tiny`` is pretrained.

A foundation model has to know edges, textures, contrast and enclosure before it sees any hospital's data. Each image
is a body in air with compartments, folds, a rim and a bias field, which are not labelled, and objects of six classes,
which are. A whole batch is generated at once, by implicit functions (positive inside) of warped coordinates in which
the body is the unit disc, so that fresh images for every step cost little compared with the step itself.

The generator shares nothing with the data on which methods are compared.
"""

from dataclasses import dataclass, fields
from math import pi

import torch
from torch import Tensor

from pretrain.shapes import SHAPES, Random, coordinates, ellipse

CLASSES = ("outside", "body", "bright", "dark", "textured", "tube", "ring", "enclosed")
OUTSIDE, BODY, BRIGHT, DARK, TEXTURED, TUBE, RING, ENCLOSED = range(len(CLASSES))


@dataclass(frozen=True)
class Kind:
    """One kind of object; an image has at most one of each.

    Attributes:
        label: index into ``CLASSES``.
        shape: key of ``SHAPES``.
        size: range of the radius, in radii of the body; log-uniform.
        chance: share of the images that have one.
        sign: 1 brighter, -1 darker than the body, 0 either.
        core: share of the objects that enclose another one.
    """

    label: int
    shape: str
    size: tuple[float, float]
    chance: float
    sign: int = 0
    core: float = 0.0


# Painted in this order; later kinds cover earlier ones.
KINDS = (
    Kind(TEXTURED, "ellipse", (0.2, 0.6), 0.45, core=0.4),
    Kind(TEXTURED, "polygon", (0.2, 0.6), 0.2, core=0.4),
    Kind(BRIGHT, "ellipse", (0.15, 0.6), 0.45, sign=1, core=0.4),
    Kind(BRIGHT, "polygon", (0.15, 0.6), 0.2, sign=1, core=0.4),
    Kind(RING, "ellipse", (0.16, 0.45), 0.6),
    Kind(DARK, "ellipse", (0.15, 0.6), 0.45, sign=-1, core=0.4),
    Kind(DARK, "polygon", (0.15, 0.6), 0.2, sign=-1, core=0.4),
    Kind(TUBE, "tube", (0.03, 0.1), 0.7),
    Kind(BRIGHT, "ellipse", (0.07, 0.2), 0.6, sign=1),
    Kind(DARK, "ellipse", (0.07, 0.2), 0.6, sign=-1),
)
# The object that others enclose; its size is a share of theirs.
CORE = Kind(ENCLOSED, "ellipse", (0.25, 0.6), 0.4)


@dataclass
class Canvas:
    """What has been painted so far; all tensors are (count, image_size, image_size), ``base`` is (count, 1, 1).

    Attributes:
        u, v: coordinates in which the body is the unit disc.
        interior: True where objects may be.
        base: grey level of the body.
        image: grey levels.
        label: class indices.
    """

    u: Tensor
    v: Tensor
    interior: Tensor
    base: Tensor
    image: Tensor
    label: Tensor

    def take(self, chosen: Tensor) -> "Canvas":
        """A copy of some of the images."""
        return Canvas(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def put(self, chosen: Tensor, part: "Canvas") -> None:
        """Put what was painted on the copy ``part`` back into the chosen images."""
        self.image[chosen], self.label[chosen] = part.image, part.label

    def paint(self, inside: Tensor, softness: Tensor, value: Tensor, label: int) -> None:
        """Blend ``value`` in where the function ``inside`` is positive; its edge is ``softness`` wide.

        The label changes at the middle of the edge.
        """
        alpha = torch.sigmoid(inside / softness) * self.interior
        self.image = self.image + alpha * (value - self.image)
        self.label = torch.where((inside > 0) & self.interior, label, self.label)


def draw(count: int, seed: int, image_size: int = 96) -> tuple[Tensor, Tensor]:
    """A batch of images and labels.

    Args:
        count: number of images.
        seed: the same seed gives the same batch.
        image_size: height and width in pixels.

    Returns:
        Images (count, 1, image_size, image_size), z-scored like users' volumes, in [-3, 6]; labels (count, image_size,
        image_size) int64.
    """
    random = Random(seed, count, image_size)
    canvas = _body(random)
    for kind in KINDS:
        chosen, some = random.some(kind.chance)
        part = canvas.take(chosen)
        _object(some, part, kind)
        canvas.put(chosen, part)
    image, label = _inverted(random, canvas.image, canvas.label)
    return _normalised(random, _acquired(random, image)).unsqueeze(1), label


def _body(random: Random) -> Canvas:
    """Air and a body with two compartments, folds along its surface, texture and a rim."""
    u, v = coordinates(random)
    square = random.uniform(0, 0.6)
    radius = (1 - square) * (u * u + v * v).sqrt() + square * torch.maximum(u.abs(), v.abs())
    inside = 1 - radius + random.uniform(0, 0.08) * random.smooth(6)
    base = random.uniform(0.3, 0.8)
    second = torch.sigmoid((random.smooth(4) + random.uniform(-1, 1)) / random.uniform(0.05, 0.5))
    folds = torch.sin(2 * pi * random.uniform(2, 6) * inside + 2.5 * random.smooth(8)) * torch.exp(-3 * inside.clamp(0))
    tissue = base + random.uniform(-0.1, 0.1) * second + random.uniform(-0.08, 0.08) * folds
    tissue = tissue + random.log_uniform(0.004, 0.05) * _grain(random)
    width = random.uniform(-0.05, 0.15)
    tissue = torch.where(inside < width, random.uniform(0.1, 1.2), tissue)
    # A second band between rim and inner tissue: a skull's marrow, a layer of fat or of fluid.
    between = (inside > width) & (inside < width + random.uniform(-0.05, 0.08))
    tissue = torch.where(between, random.uniform(0.0, 1.0), tissue)
    air = random.uniform(0, 0.05) * random.chance(0.5)
    image = air + torch.sigmoid(inside / 0.015) * (tissue - air)
    interior = inside > width.clamp(min=0.01)
    return Canvas(u, v, interior, base, image, (inside > 0).long())


def _object(random: Random, canvas: Canvas, kind: Kind) -> None:
    """Paint one object of a kind on every image, with the object that it encloses."""
    size, softness = random.log_uniform(*kind.size), random.log_uniform(0.003, 0.05)
    angle, away = random.uniform(0, 2 * pi), 0.8 * (1 - 0.5 * size) * random.uniform(0, 1).sqrt()
    u, v = canvas.u - away * angle.cos(), canvas.v - away * angle.sin()
    inside = SHAPES[kind.shape](random, u, v, size)
    canvas.paint(inside, softness, _filling(random, canvas, kind), kind.label)
    if kind.label == RING:
        lumen = inside - size * random.uniform(0.25, 0.45)
        canvas.paint(lumen, softness, _filling(random, canvas, CORE), ENCLOSED)
    if kind.core:
        chosen, some = random.some(kind.core)
        part = canvas.take(chosen)
        _core(some, part, u[chosen], v[chosen], inside[chosen], size[chosen])
        canvas.put(chosen, part)


def _core(random: Random, canvas: Canvas, u: Tensor, v: Tensor, parent: Tensor, size: Tensor) -> None:
    """Paint an object inside another of radius ``size`` around the origin of u, v, at least 0.02 away from its edge."""
    angle, away = random.uniform(0, 2 * pi), 0.4 * size * random.uniform(0, 1)
    form = ellipse(random, u - away * angle.cos(), v - away * angle.sin(), size * random.log_uniform(*CORE.size))
    value = _filling(random, canvas, CORE)
    canvas.paint(torch.minimum(form, parent - 0.02), random.log_uniform(0.003, 0.03), value, ENCLOSED)


def _filling(random: Random, canvas: Canvas, kind: Kind) -> Tensor:
    """Grey levels of an object: a contrast added to the body's level or to what is below the object."""
    if kind.label == TEXTURED:
        return canvas.base + random.uniform(-0.05, 0.05) + random.log_uniform(0.08, 0.3) * _coarse(random, canvas)
    sign = random.sign() if kind.sign == 0 else kind.sign
    below = random.uniform(0, 1) * random.chance(0.6)
    level = canvas.base + below * (canvas.image - canvas.base)
    return level + sign * random.log_uniform(0.1, 0.5) + random.log_uniform(0.004, 0.06) * _grain(random)


def _grain(random: Random) -> Tensor:
    """Texture of two scales."""
    share = random.uniform(0, 1)
    return share.sqrt() * random.smooth(12) + (1 - share).sqrt() * random.smooth(28)


def _coarse(random: Random, canvas: Canvas) -> Tensor:
    """Stripes or speckle, of unit variance."""
    angle = random.uniform(0, pi)
    along = canvas.u * angle.cos() + canvas.v * angle.sin()
    stripes = 1.4 * torch.sin(2 * pi * (random.uniform(4, 8) * along + 0.3 * random.smooth(6)))
    return torch.where(random.chance(0.4), stripes, random.smooth(30))


def _inverted(random: Random, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Invert the grey levels of one image in ten, so that air is bright; swap the labels bright and dark there."""
    swap = random.chance(0.1)
    swapped = torch.tensor([OUTSIDE, BODY, DARK, BRIGHT, TEXTURED, TUBE, RING, ENCLOSED])[label]
    return torch.where(swap, 1.3 - image, image), torch.where(swap, swapped, label)


def _acquired(random: Random, image: Tensor) -> Tensor:
    """Apply a scanner's effects: bias field, gamma, a separate blur along each axis, noise before and after it."""
    image = image.clamp(0.0, 2.0) * torch.exp(random.uniform(0, 0.25) * random.smooth(2))
    image = (image + 1e-4) ** random.log_uniform(0.7, 1.5)
    image = image + random.log_uniform(0.003, 0.12) * random.white()
    down, across = random.blur(0.2, 1.3), random.blur(0.2, 1.3)
    image = down @ image @ across.mT
    # Magnitudes are never negative: noise in air is rectified.
    return (image + random.log_uniform(0.002, 0.05) * random.white()).abs()


def _normalised(random: Random, image: Tensor) -> Tensor:
    """z-scores over the pixels above 5 % of the range, clipped to [-3, 6].

    Users' volumes are normalised as a whole, so a slice has neither mean 0 nor deviation 1; both vary here too.
    """
    low, high = image.amin(dim=(1, 2), keepdim=True), image.amax(dim=(1, 2), keepdim=True)
    weight = (image > low + 0.05 * (high - low)).float()
    total = weight.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    mean = (image * weight).sum(dim=(1, 2), keepdim=True) / total
    variance = ((image - mean) ** 2 * weight).sum(dim=(1, 2), keepdim=True) / total
    deviation = variance.sqrt().clamp(min=1e-3) * random.log_uniform(0.7, 1.4)
    return ((image - mean) / deviation + random.uniform(-0.4, 0.4)).clamp(-3, 6)

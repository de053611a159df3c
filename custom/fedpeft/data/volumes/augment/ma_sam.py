"""The augmentation of MA-SAM's published code, which FLAP-SAM's code has as well.

Each with probability one half: quarter turns and a flip; rotation; gamma; random erasing. Then always two of ten
operations, of which one does nothing. This is a new implementation of what ``MA-SAM/datasets/dataset.py`` does at
github.com/cchen-cc/MA-SAM. As there, Pillow works on 8 bits, so gamma and every operation round intensities down to
multiples of 1/255.

Three things differ. Stacks are augmented after they are resized to the network's input, not before. Seeds belong to a
stack, where the published workers share a state. And since the cubic resize may exceed 0 to 1, gamma clips first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from fedpeft.data.volumes.augment.moves import rotated, turned
from fedpeft.data.volumes.augment.registry import StackAugmentation, register_augmentation

PROBABILITY = 0.5
# Whole degrees, the last one excluded.
ANGLES = (-15, 15)
# The result is x^(1 / gamma), so five of six brighten.
GAMMA = (0.5, 3.5)
# Share of the area, and width over height.
ERASED = (0.02, 0.05)
ASPECT = (0.3, 3.3)
OPERATIONS = 2
# Shear is in pixels per pixel, translation in edges, posterising in bits, rounded down; the others are factors.
RANGES = {
    "shear_across": (-0.3, 0.3),
    "shear_down": (-0.3, 0.3),
    "scale": (0.8, 1.2),
    "translate_across": (-0.2, 0.2),
    "translate_down": (-0.2, 0.2),
    "posterize": (4.0, 8.99),
    "contrast": (0.7, 1.3),
    "brightness": (0.7, 1.3),
    "sharpness": (0.1, 1.9),
    "identity": (0.0, 1.0),
}
# Value, size -> (a, b, c, d, e, f): an output pixel (x, y) is the input's (a x + b y + c, d x + e y + f). Shears leave
# the middle where it is, the scale leaves the upper left corner.
MATRICES: dict[str, Callable[[float, int], tuple[float, ...]]] = {
    "shear_across": lambda value, size: (1, value, -value * size / 2, 0, 1, 0),
    "shear_down": lambda value, size: (1, 0, 0, value, 1, -value * size / 2),
    "scale": lambda value, size: (value, 0, 0, 0, value, 0),
    "translate_across": lambda value, size: (1, 0, value * size, 0, 1, 0),
    "translate_down": lambda value, size: (1, 0, 0, 0, 1, value * size),
}
INTENSITY: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "posterize": lambda image, value: ImageOps.posterize(image, int(value)),
    "contrast": lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    "brightness": lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    "sharpness": lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
}


@dataclass(frozen=True)
class Choice:
    """The parameters of one stack's augmentation, in the order in which they are applied.

    Attributes:
        turns: quarter turns, 0 to 3.
        flip: axis to flip, 0 (down) or 1 (across); None: neither.
        angle: degrees; None: no rotation.
        gamma: the exponent's reciprocal; None: unchanged.
        corner: top and left of the erased rectangle.
        noise: (height, width) what fills it; None: nothing is erased.
        operations: (name, value) of the two operations.
    """

    turns: int = 0
    flip: int | None = None
    angle: int | None = None
    gamma: float | None = None
    corner: tuple[int, int] = (0, 0)
    noise: np.ndarray | None = None
    operations: tuple[tuple[str, float], ...] = ()


class MASAMAugmentation(StackAugmentation):
    """MA-SAM's augmentation, for stacks of intensities from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = Choice()

    def randomize(self, data: int) -> None:
        """Choose an augmentation at random for squares of ``data`` pixels."""
        turn, rotation, gamma, erase = self.R.random_sample(4) < PROBABILITY
        corner, noise = self._erased(data) if erase else ((0, 0), None)
        names = [list(RANGES)[index] for index in self.R.choice(len(RANGES), OPERATIONS, replace=False)]
        self.chosen = Choice(
            turns=int(self.R.randint(4)) if turn else 0,
            flip=int(self.R.randint(2)) if turn else None,
            angle=int(self.R.randint(*ANGLES)) if rotation else None,
            gamma=float(self.R.uniform(*GAMMA)) if gamma else None,
            corner=corner,
            noise=noise,
            operations=tuple((name, float(self.R.uniform(*RANGES[name]))) for name in names),
        )

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Augment one stack, see `StackAugmentation`; intensities from 0 to 1 stay there."""
        self.randomize(data["image"].shape[-1])
        chosen = self.chosen
        image, label = (turned(data[key], chosen.turns, chosen.flip) for key in self.keys)
        if chosen.angle is not None:
            image, label = rotated(image, label, chosen.angle)
        if chosen.gamma is not None:
            image = _brightened(image, chosen.gamma)
        if chosen.noise is not None:
            image, label = _erase(image, label, chosen.corner, torch.from_numpy(chosen.noise))
        for name, value in chosen.operations:
            image, label = _operated(image, label, name, value)
        return {"image": image, "label": label}

    def _erased(self, size: int) -> tuple[tuple[int, int], np.ndarray]:
        """Corner of a rectangle smaller than the square, and the noise in it."""
        height = width = size
        while height >= size or width >= size:
            area, aspect = self.R.uniform(*ERASED) * size**2, self.R.uniform(*ASPECT)
            height, width = int(np.sqrt(area / aspect)), int(np.sqrt(area * aspect))
        corner = int(self.R.randint(size - height + 1)), int(self.R.randint(size - width + 1))
        return corner, self.R.random_sample((height, width)).astype(np.float32)


def _brightened(image: Tensor, gamma: float) -> Tensor:
    table = (255 * (np.arange(256) / 255) ** (1 / gamma)).astype(np.uint8)
    return _unit(table[_bytes(image)])


def _erase(image: Tensor, label: Tensor, corner: tuple[int, int], noise: Tensor) -> tuple[Tensor, Tensor]:
    image, label = image.clone(), label.clone()
    down, across = (slice(start, start + size) for start, size in zip(corner, noise.shape, strict=True))
    image[:, down, across] = noise
    label[:, down, across] = 0
    return image, label


def _operated(image: Tensor, label: Tensor, name: str, value: float) -> tuple[Tensor, Tensor]:
    """Image and label after one operation; those of intensities leave the label as it is."""
    if name in MATRICES:
        size = image.shape[-1]
        matrix = MATRICES[name](value, size)
        moved = [_moved(each, matrix, Image.Resampling.BILINEAR) for each in _bytes(image)]
        classes = [_moved(each, matrix, Image.Resampling.NEAREST) for each in label.numpy()]
        return _unit(np.stack(moved)), torch.from_numpy(np.stack(classes))
    if name in INTENSITY:
        changed = [np.asarray(INTENSITY[name](Image.fromarray(each), value)) for each in _bytes(image)]
        return _unit(np.stack(changed)), label
    return image, label


def _moved(image: np.ndarray, matrix: tuple[float, ...], resampling: Image.Resampling) -> np.ndarray:
    """A slice of bytes, resampled with 0 from outside."""
    plain = Image.fromarray(image)
    return np.asarray(plain.transform(plain.size, Image.Transform.AFFINE, matrix, resample=resampling))


def _bytes(image: Tensor) -> np.ndarray:
    """0 to 1 as bytes, rounded down as the published code does."""
    return (image.clamp(0.0, 1.0) * 255).numpy().astype(np.uint8)


def _unit(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.astype(np.float32) / 255)


register_augmentation("ma_sam", MASAMAugmentation)

"""Augmentation of a stack of slices: the same for all its slices, with one resampling for all geometry.

The recipe is that of FLAP-SAM's published training, each part with probability one half: quarter turns and a flip;
rotation; gamma; random erasing; and two of shear, scale, translation, posterising, contrast, brightness and sharpness.
A chain of MONAI's own transforms resamples once per transform and takes several milliseconds for a stack of
5 x 96 x 96, about as long as a small backbone's step on one slice. Composing the matrices first (with MONAI's
functions) and resampling once takes about one. Stacks are augmented one by one because a core's cache is large enough
for a stack but not for a batch: with operations on whole batches, batches of 224 pixels took half as long again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from monai.transforms.utils import create_rotate, create_scale, create_shear, create_translate
from torch import Tensor
from torch.nn import functional

from fedpeft.data.volumes.augment.moves import turned
from fedpeft.data.volumes.augment.registry import StackAugmentation, register_augmentation

PROBABILITY = 0.5
ROTATION = 15.0
GAMMA = (0.5, 3.5)
ERASED = (0.02, 0.05)
ASPECT = (0.5, 2.0)
# Two of these parts are chosen. Posterising is in bits, translation a share of the edge.
RANGES = {
    "shear": (-0.2, 0.2),
    "scale": (0.8, 1.2),
    "translate": (-0.2, 0.2),
    "posterize": (3.0, 6.0),
    "contrast": (0.7, 1.3),
    "brightness": (0.7, 1.3),
    "sharpness": (0.7, 1.3),
}
GEOMETRY = ("shear", "scale", "translate")


@dataclass(frozen=True)
class Augmentation:
    """The parameters of one stack's augmentation.

    Attributes:
        turns: quarter turns, 0 to 3.
        flip: axis to flip, 0 (down) or 1 (across); None: neither.
        matrix: (3, 3) from output to input coordinates, -1 to 1 across the square; None: no resampling.
        gamma: exponent; None: unchanged.
        intensity: (part, value) pairs, applied in this order.
        box: top, left, height and width of the erased rectangle; None: nothing is erased.
    """

    turns: int = 0
    flip: int | None = None
    matrix: np.ndarray | None = None
    gamma: float | None = None
    intensity: tuple[tuple[str, float], ...] = ()
    box: tuple[int, int, int, int] | None = None


class Augment(StackAugmentation):
    """The standard augmentation; the recipe is the module's constants."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = Augmentation()

    def randomize(self, data: int) -> None:
        """Choose an augmentation at random for squares of ``data`` pixels."""
        turn, rotate, gamma, erase, others = self.R.random_sample(5) < PROBABILITY
        chosen = sorted(self.R.choice(len(RANGES), 2, replace=False)) if others else []
        names = [list(RANGES)[index] for index in chosen]
        angle = self.R.uniform(-ROTATION, ROTATION) if rotate else None
        self.chosen = Augmentation(
            turns=int(self.R.randint(4)) if turn else 0,
            flip=int(self.R.randint(2)) if turn else None,
            matrix=self._matrix(angle, [name for name in names if name in GEOMETRY]),
            gamma=float(self.R.uniform(*GAMMA)) if gamma else None,
            intensity=tuple((name, float(self.R.uniform(*RANGES[name]))) for name in names if name not in GEOMETRY),
            box=self._box(data) if erase else None,
        )

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Augment one stack.

        Args:
            data: "image" (N, size, size) float32 and "label" (N, size, size) uint8; not changed.

        Returns:
            Both in the same shapes and types. Intensities stay within the stack's range; pixels from outside and erased
            ones have its minimum and label 0.
        """
        self.randomize(data["image"].shape[-1])
        image, label = (turned(data[key], self.chosen.turns, self.chosen.flip) for key in self.keys)
        low, high = float(image.min()), float(image.max())
        image = (image - low) / max(high - low, 1e-6)
        if self.chosen.matrix is not None:
            image, label = _resample(image, label, self.chosen.matrix)
        if self.chosen.gamma is not None:
            image = image**self.chosen.gamma
        for name, value in self.chosen.intensity:
            image = INTENSITY[name](image, value).clamp_(0.0, 1.0)
        if self.chosen.box is not None:
            image, label = _erase(image, self.chosen.box), _erase(label, self.chosen.box)
        return {"image": image * (high - low) + low, "label": label}

    def _matrix(self, angle: float | None, names: list[str]) -> np.ndarray | None:
        matrices = [] if angle is None else [create_rotate(2, np.deg2rad(angle))]
        for name in names:
            first, second = self.R.uniform(*RANGES[name], size=2)
            if name == "shear":
                matrices.append(create_shear(2, (first, second)))
            elif name == "scale":
                matrices.append(create_scale(2, (1.0 / first, 1.0 / first)))
            else:
                matrices.append(create_translate(2, (2 * first, 2 * second)))
        return reduce(np.matmul, matrices) if matrices else None

    def _box(self, size: int) -> tuple[int, int, int, int]:
        area, aspect = self.R.uniform(*ERASED) * size**2, np.exp(self.R.uniform(*np.log(ASPECT)))
        height = max(1, min(size, round(np.sqrt(area * aspect))))
        width = max(1, min(size, round(area / height)))
        return int(self.R.randint(size - height + 1)), int(self.R.randint(size - width + 1)), height, width


def _resample(image: Tensor, label: Tensor, matrix: np.ndarray) -> tuple[Tensor, Tensor]:
    theta = torch.from_numpy(matrix[None, :2]).float()
    grid = functional.affine_grid(theta, [1, 1, *image.shape[1:]], align_corners=False)
    moved = functional.grid_sample(image[None], grid, mode="bilinear", align_corners=False)[0]
    classes = functional.grid_sample(label[None].float(), grid, mode="nearest", align_corners=False)[0]
    return moved, classes.to(label.dtype)


def _erase(stack: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    top, left, height, width = box
    stack = stack.clone()
    stack[:, top : top + height, left : left + width] = 0
    return stack


def _posterize(image: Tensor, bits: float) -> Tensor:
    levels = 2 ** round(bits) - 1
    return torch.round(image * levels) / levels


def _contrast(image: Tensor, factor: float) -> Tensor:
    mean = image.mean()
    return (image - mean) * factor + mean


def _sharpness(image: Tensor, factor: float) -> Tensor:
    smooth = functional.avg_pool2d(image[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]
    return smooth + (image - smooth) * factor


INTENSITY: dict[str, Callable[[Tensor, float], Tensor]] = {
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": torch.mul,
    "sharpness": _sharpness,
}


register_augmentation("standard", Augment)

"""A volume's slices in the network's square, and the intensity range of their stacks.

Min-max of a stack is affine, and so is every resize. Slices are therefore resized once and scaled for each stack that
they are in, by the range of the stack's voxels at native resolution, which each slice's own range determines.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedpeft.data.volumes.fit import FITS
from fedpeft.data.volumes.volume import Volume

# As in the published codes: a stack of one intensity becomes 0.
EPSILON = 1e-8


@dataclass(frozen=True)
class FittedSlices:
    """A volume's slices, fitted to the network's input.

    Attributes:
        image: (D, size, size) float32.
        limits: (D, 2) float32, each slice's minimum and maximum before it was fitted; None where stacks keep their
            intensities.
    """

    image: Tensor
    limits: Tensor | None

    def stack_limits(self, positions: np.ndarray) -> Tensor:
        """Minimum and maximum of stacks, (..., 2) for the positions (..., stack) of their slices; needs ``limits``."""
        assert self.limits is not None, "only stacks that are scaled have limits"
        limits = self.limits[torch.from_numpy(self.inside(positions))]
        return torch.stack([limits[..., 0].amin(-1), limits[..., 1].amax(-1)], -1)

    def stack(self, positions: np.ndarray) -> Tensor:
        """One stack as the network takes it, (stack, size, size)."""
        images = self.image[self.inside(positions)]
        return images if self.limits is None else scaled(images, self.stack_limits(positions))

    def inside(self, positions: np.ndarray) -> np.ndarray:
        """Indices of the slices at these positions: beyond an end, that of the slice there."""
        return np.clip(positions, 0, len(self.image) - 1)


def fit_slices(volume: Volume, size: int) -> FittedSlices:
    """Fit a volume's slices to squares of ``size`` pixels, as its preprocessing says."""
    way, spacing = FITS[volume.preprocessing.fit], volume.spacing[:2]
    native = volume.image.permute(2, 0, 1).contiguous()
    image = way.square(native, spacing, size, "image")
    if volume.preprocessing.stack_range == "kept":
        return FittedSlices(image, None)
    low, high = native.amin((1, 2)), native.amax((1, 2))
    if not way.fills((native.shape[1], native.shape[2]), spacing, size):
        # Padding has the volume's minimum and belongs to what the network sees.
        low = low.clamp(max=float(native.min()))
    return FittedSlices(image, torch.stack([low, high], 1))


def fit_label(volume: Volume, size: int) -> Tensor:
    """The labels of a volume that has some, (D, size, size) uint8."""
    assert volume.label is not None, "the caller has checked that there is a label"
    label = volume.label.permute(2, 0, 1).contiguous()
    return FITS[volume.preprocessing.fit].square(label, volume.spacing[:2], size, "label")


def scaled(images: Tensor, limits: Tensor) -> Tensor:
    """Scale images (..., size, size) so that the two limits (..., 2) become 0 and 1."""
    low, high = limits[..., 0, None, None], limits[..., 1, None, None]
    return (images - low) / (high - low + EPSILON)

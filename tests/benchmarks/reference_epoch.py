"""An epoch and an evaluation as one would write them first: what ours are compared with.

Every stack of neighbouring slices, one slice apart, is a sample, as in FLAP-SAM's published code: slices lie in files
of their own, are read, fitted and augmented (MONAI's own transforms) one sample after the other, and computed in every
stack that they are in. An evaluation averages the softmax of all stacks that hold a slice.
"""

from collections.abc import Iterator, Sequence
from math import radians
from pathlib import Path

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandCoarseDropoutd,
    RandFlipd,
    RandRotate90d,
    RandRotated,
    RandScaleIntensityd,
)
from torch import Tensor, nn

from fedpeft.config.run import Run
from fedpeft.data.volumes.fit import fit, unfit
from fedpeft.data.volumes.volume import Volume

KEYS = ("image", "label")
MODES = ("bilinear", "nearest")


class ReferenceStacks(Dataset):
    """Stacks of a folder of slices.

    Args:
        volumes: with labels.
        folder: where their slices are written to, one file a slice and key.
        run: gives stack, side and the share of stacks without foreground.
    """

    def __init__(self, volumes: Sequence[Volume], folder: Path, run: Run) -> None:
        self.run, self.folder, self.spacing = run, folder, [volume.spacing[:2] for volume in volumes]
        chosen: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for index, volume in enumerate(volumes):
            depth = volume.image.shape[2]
            for place in range(depth):
                for key in KEYS:
                    np.save(self._file(index, place, key), getattr(volume, key)[..., place].numpy())
            for start in range(max(1, depth - run.data.stack + 1)):
                chosen[bool(volume.label[..., start : start + run.data.stack].any())].append((index, start))
        without = chosen[False][: max(1, round(run.data.background_ratio * len(chosen[True])))]
        super().__init__(chosen[True] + without, _augmentation(run.model.image_size))

    def _file(self, index: int, place: int, key: str) -> Path:
        return self.folder / f"{index}-{place}-{key}.npy"

    def _transform(self, number: int) -> dict[str, Tensor]:
        index, start = self.data[number]
        places = range(start, start + self.run.data.stack)
        return self.transform({key: torch.cat([self._slice(index, place, key) for place in places]) for key in KEYS})

    def _slice(self, index: int, place: int, key: str) -> Tensor:
        array = torch.from_numpy(np.load(self._file(index, place, key)))[None]
        return fit(array, self.spacing[index], self.run.model.image_size, key)


def _augmentation(side: int) -> Compose:
    """The recipe of fedpeft.data.volumes.augment.standard in MONAI's own transforms."""
    return Compose(
        [
            RandRotate90d(KEYS, prob=0.5, spatial_axes=(0, 1)),
            RandFlipd(KEYS, prob=0.25, spatial_axis=0),
            RandFlipd(KEYS, prob=0.25, spatial_axis=1),
            RandRotated(KEYS, range_x=radians(15), prob=0.5, mode=MODES),
            RandAdjustContrastd("image", prob=0.5, gamma=(0.5, 3.5)),
            RandCoarseDropoutd(KEYS, holes=1, spatial_size=round(0.19 * side), fill_value=0, prob=0.5),
            RandAffined(
                KEYS,
                prob=0.36,
                shear_range=((-0.2, 0.2),) * 2,
                translate_range=(0.2 * side,) * 2,
                scale_range=(0.2, 0.2),
                mode=MODES,
            ),
            RandScaleIntensityd("image", factors=0.3, prob=0.14),
        ]
    )


def reference_batches(stacks: ReferenceStacks, run: Run, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's batches: images (batch * stack, 1, side, side) and labels (batch * stack, side, side)."""
    stacks.transform.set_random_state(seed=seed)
    order = torch.Generator().manual_seed(seed)
    for batch in DataLoader(stacks, batch_size=run.training.batch, shuffle=True, generator=order):
        yield batch["image"].as_tensor().flatten(0, 1)[:, None], batch["label"].as_tensor().flatten(0, 1).long()


@torch.no_grad()
def reference_probabilities(model: nn.Module, volume: Volume, run: Run) -> Tensor:
    """Softmax of each slice at native resolution, the mean of all stacks that hold it: (D, classes + 1, H, W)."""
    height, width, depth = volume.image.shape
    total, count = torch.zeros(depth, run.outputs, height, width), torch.zeros(depth)
    low = float(volume.image.min())
    for start in range(max(1, depth - run.data.stack + 1)):
        places = range(start, min(start + run.data.stack, depth))
        # One slice's minimum is not the volume's, with which ``fit`` pads.
        images = [_padded(volume.image[..., place], volume.spacing[:2], run.model.image_size, low) for place in places]
        for place, logits in zip(places, model(torch.stack(images)), strict=True):
            native = unfit(logits[None], (height, width), volume.spacing[:2])
            total[place] += native.softmax(dim=1)[0]
            count[place] += 1
    return total / count[:, None, None, None]


def _padded(image: Tensor, spacing: tuple[float, float], side: int, low: float) -> Tensor:
    inside = fit(torch.ones(1, *image.shape, dtype=torch.uint8), spacing, side, "label")
    return torch.where(inside > 0, fit(image[None], spacing, side, "image"), torch.tensor(low))

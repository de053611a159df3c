"""The example of a site that has volumes: one slice of the case with most foreground."""

from statistics import fmean

import numpy as np
from torch import Tensor
from torch.nn import Module

from fedpeft.config.run import Run
from fedpeft.data.datalist import Site
from fedpeft.data.volumes.volume import Volume
from fedpeft.study.plots.masks import Example
from fedpeft.tasks.segmentation import SegmentationTask
from fedpeft.tasks.volume_masks import dice_of, predict_mask

# Percentiles of a volume's intensities that are shown as black and as white.
WINDOW = (1, 99.5)


def volume_example(run: Run, site: Site, split: str) -> Example:
    """A slice in radiological orientation: anterior up, the patient's right on the left."""
    volumes = SegmentationTask().read(run, site, split, run.preprocessing)
    _, volume = max(volumes, key=lambda item: int((_label(item[1]) > 0).sum()))
    index = _telling_slice(volume)

    def shown(voxels: Tensor) -> np.ndarray:
        return np.rot90(voxels[:, :, index].numpy()[::-1])

    def predict(model: Module) -> tuple[np.ndarray, float]:
        mask = predict_mask(model, volume, run)
        return shown(mask), fmean(dice_of(mask, volume, run.data.classes))

    low, high = np.percentile(volume.image, WINDOW)
    aspect = volume.spacing[1] / volume.spacing[0]
    return Example(shown(volume.image), shown(_label(volume)), predict, (float(low), float(high)), aspect)


def _label(volume: Volume) -> Tensor:
    """The label of a volume that has one, as every scored volume does."""
    assert volume.label is not None
    return volume.label


def _telling_slice(volume: Volume) -> int:
    """The index of the slice with the most voxels of the volume's rarest class."""
    label = _label(volume)
    classes = [c for c in label.unique().tolist() if c]
    if not classes:
        return label.shape[-1] // 2
    rarest = min(classes, key=lambda c: int((label == c).sum()))
    return int((label == rarest).sum(dim=(0, 1)).argmax())

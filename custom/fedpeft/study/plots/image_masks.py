"""The example of a site that has images with masks: the case with most classes, and among these most foreground."""

from statistics import fmean

import numpy as np
from torch import Tensor
from torch.nn import Module

from fedpeft.config.run import Run
from fedpeft.data.datalist import Site
from fedpeft.data.image_masks.pairs import Pair
from fedpeft.data.images.images import read_image
from fedpeft.study.plots.masks import Example
from fedpeft.tasks.image_segmentation import ImageSegmentationTask, dice_of, with_masks


def image_example(run: Run, site: Site, split: str) -> Example:
    """An image in its own colours and size."""
    pairs = ImageSegmentationTask().read(run, site, split, run.preprocessing)
    case, pair = max(zip(site.splits[split], pairs, strict=True), key=lambda item: _telling(_label(item[1])))

    def predict(model: Module) -> tuple[np.ndarray, float]:
        mask = with_masks(model, [pair], run, lambda _, found: found)[0]
        return mask.numpy(), fmean(dice_of(mask, pair, run.data.classes))

    return Example(read_image(case.image).permute(1, 2, 0).numpy(), _label(pair).numpy(), predict)


def _telling(label: Tensor) -> tuple[int, float]:
    return len(label.unique()), float((label > 0).float().mean())


def _label(pair: Pair) -> Tensor:
    """The mask of a case that has one, as every scored case does."""
    assert pair.label is not None
    return pair.label

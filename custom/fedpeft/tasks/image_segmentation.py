"""Segmentation of images: models train on images with masks, predict a mask as PNG and are scored by Dice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fedpeft.common.parallel import parallel_map
from fedpeft.common.precision import as_here
from fedpeft.config.preprocessing import Preprocessing
from fedpeft.config.run import Run
from fedpeft.config.tasks import TASKS
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Case, Site
from fedpeft.data.image_masks.masks import write_mask
from fedpeft.data.image_masks.pairs import SPACING, MaskData, Pair, read_pair
from fedpeft.data.images.images import normalised
from fedpeft.data.volumes.fit import FITS
from fedpeft.tasks.base import IMAGES, Prediction, Task, Written
from fedpeft.tasks.mask_metrics import MASK_METRICS, mask_scores
from fedpeft.tasks.scores import CaseScore, Scoring
from fedpeft.tasks.segmentation import make_loss
from fedpeft.tasks.types import Loss, Stopped
from fedpeft.tasks.volume_masks import PIECE, dice, largest

T = TypeVar("T")


@dataclass(frozen=True)
class ImageMask(Prediction):
    """The mask of one image.

    Attributes:
        mask: uint8 labels (H, W) at the file's own size.
        labels: index -> name, background included.
    """

    mask: Tensor
    labels: dict[int, str]

    @property
    def value(self) -> np.ndarray:
        """The mask, uint8 (H, W), with the index of a class in each pixel."""
        return self.mask.numpy()

    def write(self, out: Path) -> Written:
        """Write the mask as PNG with a palette, and count the pixels of each class."""
        write_mask(out, self.mask)
        pixels = {name: int((self.mask == index).sum()) for index, name in self.labels.items() if index}
        counts = ", ".join(f"{name} {count:,}" for name, count in pixels.items())
        return Written({"mask": str(out), "pixels": pixels}, f"{out}: {counts} pixels of {self.mask.numel():,}")


class ImageSegmentationTask(Task[MaskData, list[Pair]]):
    """Predicts masks of images; the score of a case and class is its Dice."""

    entry = TASKS["image_segmentation"]
    does = "segments"
    takes = IMAGES
    endings = (".png",)
    figure = "image_masks"
    metrics = MASK_METRICS
    length = "px"
    kept_as = ".png"

    def training_data(self, run: Run, site: Site, before_read: Callable[[], None], cache: Cache) -> MaskData:
        """The images of a site's training cases with their masks; see `Task.training_data`."""
        return MaskData(
            site.splits["training"],
            site.labels,
            run.model.image_size,
            run.backbone.colours,
            batch=run.training.batch,
            augmentation=run.data.augmentation,
            fit=run.preprocessing.fit,
            before_read=before_read,
            cache=cache,
        )

    def loss(self, run: Run, data: MaskData) -> Loss:
        """That of volumes, see ``segmentation.make_loss``; it is the same at every site."""
        return make_loss(run)

    def read(
        self,
        run: Run,
        site: Site,
        split: str,
        preprocessing: Preprocessing,
        before_read: Callable[[], None] = lambda: None,
        cache: Cache | None = None,
    ) -> list[Pair]:
        """A split's images and masks; the cache bounds their memory. See `Task.read`."""
        pairs, cache = [], cache or Cache()
        for case in site.splits[split]:
            before_read()
            pairs.append(_bounded(read_pair(case, site.labels, run.model.image_size, preprocessing.fit), cache))
        return pairs

    def unlabelled(self, cases: list[Pair]) -> Iterator[str]:
        """The names of the cases without a mask."""
        return (pair.case for pair in cases if pair.label is None)

    def score_labelled(
        self,
        model: nn.Module,
        cases: list[Pair],
        run: Run,
        labels: Mapping[int, str],
        where: tuple[str, str],
        should_stop: Callable[[], bool],
        scoring: Scoring,
    ) -> list[CaseScore]:
        """Dice and further metrics per image and class at the image's own size, without background; see `Task.score`.

        Distances are in pixels: an image file gives no spacing.
        """

        def scored(pair: Pair, mask: Tensor) -> list[CaseScore]:
            if scoring.keep is not None:
                scoring.keep(pair.case, ImageMask(mask, dict(labels)))
            values = dice_of(mask, pair, run.data.classes)
            assert pair.label is not None, "dice_of refuses an image without mask"
            return mask_scores(mask, pair.label, SPACING, values, labels, (*where, pair.case), scoring)

        found = with_masks(model, cases, run, scored, should_stop)
        return [score for scores in found for score in scores]

    def predict(self, model: nn.Module, image: Path, run: Run, preprocessing: Preprocessing) -> ImageMask:
        """The mask of a JPEG or PNG file; see `Task.predict`."""
        pair = read_pair(Case(image.name, image), run.label_table, run.model.image_size, preprocessing.fit)
        return ImageMask(with_masks(model, [pair], run, lambda _, mask: mask)[0], run.label_table)

    def notes(self, run: Run) -> list[str]:
        """How far the mask decoder scales the embedding up."""
        return [f"decoder {2 ** len(run.upscaling)}x"] if run.upscaling else []


def dice_of(mask: Tensor, pair: Pair, classes: int) -> list[float]:
    """Dice of the classes 1 to ``classes`` against an image's own mask.

    Raises:
        ValueError: the image has no mask.
    """
    if pair.label is None:
        raise ValueError(f"case {pair.case} has no mask; it can be inferred, not scored")
    return dice(mask, pair.label, classes)


@torch.inference_mode()
def with_masks(
    model: nn.Module,
    pairs: Sequence[Pair],
    run: Run,
    use: Callable[[Pair, Tensor], T],
    should_stop: Callable[[], bool] = lambda: False,
) -> list[T]:
    """Predict the masks of images, and call ``use`` with each image and its mask, uint8 (H, W) at its own size.

    Args:
        model: in evaluation mode.
        pairs: the images; their masks are not looked at.
        run: gives the colour statistics of its backbone and, on a GPU, the images of a forward pass.
        use: makes what is returned, so that no more masks than needed are in memory.
        should_stop: asked before every forward pass.

    Returns:
        What ``use`` returned, in the order of the images.

    Raises:
        Stopped: ``should_stop`` returned True.
    """
    device = next(model.parameters()).device
    precision = as_here(device)
    piece = PIECE if device.type == "cpu" else run.training.batch

    @torch.inference_mode()
    def used(part: Sequence[Pair]) -> list[T]:
        if should_stop():
            raise Stopped("stopped while predicting")
        images = normalised(torch.stack([pair.pixels for pair in part]), run.backbone.colours)
        with precision():
            logits = model(images.to(device)).float().cpu()
        return [use(pair, _native(values[None], pair)) for pair, values in zip(part, logits, strict=True)]

    pieces = [pairs[start : start + piece] for start in range(0, len(pairs), piece)]
    found = parallel_map(used, pieces) if device.type == "cpu" else map(used, pieces)
    return [item for part in found for item in part]


def _native(logits: Tensor, pair: Pair) -> Tensor:
    """Labels (H, W) at the image's own size, where the arg max is taken; logits are (1, classes + 1, size, size)."""
    way = FITS[pair.fit]
    values = logits.softmax(dim=1) if way.of_probabilities else logits
    return largest(way.native(values, pair.native, SPACING))[0]


def _bounded(pair: Pair, cache: Cache) -> Pair:
    """The same pair, its pixels kept in memory or in mapped files as the cache's limits allow."""
    if pair.label is None:
        return replace(pair, pixels=cache.hold({"pixels": pair.pixels})["pixels"])
    kept = cache.hold({"pixels": pair.pixels, "label": pair.label})
    return replace(pair, pixels=kept["pixels"], label=kept["label"])

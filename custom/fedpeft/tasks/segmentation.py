"""Segmentation: models train on stacks of slices, predict masks of whole volumes and are scored by Dice."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from monai.losses import DiceLoss
from monai.networks.utils import one_hot
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedpeft.config.datasets import Preprocessing
from fedpeft.config.run import Run
from fedpeft.config.tasks import TASKS
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Case, Site
from fedpeft.data.volumes.stacks import StackData
from fedpeft.data.volumes.volume import NORMALISED_BY, Volume, read_volume, save_mask, to_original_grid
from fedpeft.tasks.base import VOLUMES, Prediction, Task, Written
from fedpeft.tasks.mask_metrics import MASK_METRICS, mask_scores
from fedpeft.tasks.scores import CaseScore, Scoring
from fedpeft.tasks.types import Loss
from fedpeft.tasks.volume_masks import dice_of, predict_mask

# The name of a case and its volume.
NamedVolume = tuple[str, Volume]


@dataclass(frozen=True)
class MaskPrediction(Prediction):
    """The mask of one volume.

    Attributes:
        mask: uint8 labels (H, W, D) on the grid of ``volume``.
        volume: the volume that was segmented.
        labels: index -> name, background included.
    """

    mask: Tensor
    volume: Volume
    labels: dict[int, str]

    @property
    def value(self) -> tuple[np.ndarray, np.ndarray]:
        """The mask on the input file's own grid, uint8, and the (4, 4) affine from its voxels to millimetres."""
        return to_original_grid(self.mask, self.volume), self.volume.grid.affine

    def write(self, out: Path) -> Written:
        """Write the mask as NIfTI on the input file's own grid, and count the voxels of each class."""
        out.parent.mkdir(parents=True, exist_ok=True)
        save_mask(out, self.mask, self.volume)
        inside = self.mask[self.volume.content]
        voxels = {name: int((inside == index).sum()) for index, name in self.labels.items() if index}
        counts = ", ".join(f"{name} {count:,}" for name, count in voxels.items())
        scope = self.volume.normalised
        return Written(
            {"mask": str(out), "voxels": voxels, "normalised_by": scope},
            f"{out}: {counts} voxels of {inside.numel():,}; normalised by {NORMALISED_BY[scope]}",
        )


class SegmentationTask(Task[StackData, list[NamedVolume]]):
    """Predicts masks of volumes; the score of a case and class is its Dice."""

    entry = TASKS["segmentation"]
    does = "segments"
    takes = VOLUMES
    endings = (".nii", ".nii.gz")
    figure = "masks"
    metrics = MASK_METRICS
    length = "mm"
    kept_as = ".nii.gz"

    def training_data(self, run: Run, site: Site, before_read: Callable[[], None], cache: Cache) -> StackData:
        """The stacks of a site's training volumes; see `Task.training_data`."""
        return StackData(
            site.splits["training"],
            site.labels,
            run.preprocessing,
            run.model.image_size,
            batch=run.training.batch,
            stack=run.data.stack,
            stride=run.data.stride,
            background_ratio=run.data.background_ratio,
            augmentation=run.data.augmentation,
            ends=run.data.stack_ends,
            whole=run.method.mixes_slices,
            before_read=before_read,
            cache=cache,
        )

    def loss(self, run: Run, data: StackData) -> Loss:
        """See `make_loss`; it is the same at every site."""
        return make_loss(run)

    def read(
        self,
        run: Run,
        site: Site,
        split: str,
        preprocessing: Preprocessing,
        before_read: Callable[[], None] = lambda: None,
        cache: Cache | None = None,
    ) -> list[NamedVolume]:
        """A split's normalised volumes with their case names; the cache bounds their memory. See `Task.read`."""
        volumes, cache = [], cache or Cache()
        for case in site.splits[split]:
            before_read()
            volumes.append((case.case, _bounded(read_volume(case, site.labels, preprocessing), cache)))
        return volumes

    def unlabelled(self, cases: list[NamedVolume]) -> Iterator[str]:
        """The names of the cases whose volume has no label."""
        return (case for case, volume in cases if volume.label is None)

    def score_labelled(
        self,
        model: nn.Module,
        cases: list[NamedVolume],
        run: Run,
        labels: Mapping[int, str],
        where: tuple[str, str],
        should_stop: Callable[[], bool],
        scoring: Scoring,
    ) -> list[CaseScore]:
        """Dice and further metrics per case and class, the background left out; see `Task.score`."""
        scores = []
        for case, volume in cases:
            mask = predict_mask(model, volume, run, should_stop)
            if scoring.keep is not None:
                scoring.keep(case, MaskPrediction(mask, volume, dict(labels)))
            scores += _scores(mask, volume, run.data.classes, labels, (*where, case), scoring)
        return scores

    def predict(self, model: nn.Module, image: Path, run: Run, preprocessing: Preprocessing) -> MaskPrediction:
        """The mask of a NIfTI file, normalised by its own statistics; see `Task.predict`."""
        volume = read_volume(Case(image.name, image), run.label_table, preprocessing)
        return MaskPrediction(predict_mask(model, volume, run), volume, run.label_table)

    def normalised_by(self, cases: list[NamedVolume]) -> str:
        """What normalised the volumes, a key of ``NORMALISED_BY``; ``cases`` is not empty and of one site."""
        return cases[0][1].normalised

    def notes(self, run: Run) -> list[str]:
        """How far the mask decoder scales the embedding up."""
        return [f"decoder {2 ** len(run.upscaling)}x"] if run.upscaling else []


def _scores(
    mask: Tensor, volume: Volume, classes: int, labels: Mapping[int, str], of: tuple[str, str, str], scoring: Scoring
) -> list[CaseScore]:
    """A case's scores over the file's voxels alone, with their true spacing."""
    dice = dice_of(mask, volume, classes)
    assert volume.label is not None, "dice_of refuses a volume without label"
    inside, truth = mask[volume.content], volume.label[volume.content]
    return mask_scores(inside, truth, volume.spacing, dice, labels, of, scoring)


def make_loss(run: Run) -> Loss:
    """FLAP-SAM's loss: 0.2 cross-entropy + 0.8 Dice loss for ``dice_weight`` 0.8.

    The Dice loss uses the softmax probabilities of all classes, background included, and a squared denominator; it is
    computed over the whole batch. Labels are brought to the logits' size, see ``labels_of_size``.

    Returns:
        A function of logits (B, classes + 1, h, w) and labels (B, size, size) int64.
    """
    dice = DiceLoss(softmax=True, squared_pred=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)
    weight = run.training.dice_weight

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        labels = labels_of_size(labels, *logits.shape[-2:])
        # In the logits' type: MONAI would round the norms of float32 labels, even for float64 logits.
        truth = one_hot(labels.unsqueeze(1), logits.shape[1], dtype=logits.dtype)
        return weight * dice(logits, truth) + (1 - weight) * cross_entropy(logits, labels)

    return loss


def labels_of_size(labels: Tensor, height: int, width: int) -> Tensor:
    """Labels (B, H, W) at another size, (B, height, width), by the nearest pixel.

    The corner pixels keep their places, as with ``scipy.ndimage.zoom``, by which SAMed makes the labels of its loss.
    """
    for dim, size in ((1, height), (2, width)):
        if labels.shape[dim] != size:
            last = (labels.shape[dim] - 1) / max(size - 1, 1)
            nearest = (torch.arange(size, dtype=torch.float64) * last + 0.5).long()
            labels = labels.index_select(dim, nearest.to(labels.device))
    return labels


def _bounded(volume: Volume, cache: Cache) -> Volume:
    """The same volume, its voxels kept in memory or in mapped files as the cache's limits allow."""
    if volume.label is None:
        return replace(volume, image=cache.hold({"image": volume.image})["image"])
    voxels = cache.hold({"image": volume.image, "label": volume.label})
    return replace(volume, image=voxels["image"], label=voxels["label"])

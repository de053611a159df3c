"""Segmentation: models train on stacks of slices, predict masks of whole volumes and are scored by Dice."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from monai.losses import DiceCELoss
from torch import Tensor, nn

from fedpeft.config.datasets import Preprocessing
from fedpeft.config.run import Run
from fedpeft.config.tasks import TASKS
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Case, Site
from fedpeft.data.volumes.stacks import StackData
from fedpeft.data.volumes.volume import NORMALISED_BY, Volume, read_volume, save_mask, to_original_grid
from fedpeft.tasks.base import Prediction, Task, Written
from fedpeft.tasks.scores import CaseScore
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
    endings = (".nii", ".nii.gz")
    figure = "masks"

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
    ) -> list[CaseScore]:
        """Dice per case and class, the background left out; see `Task.score`."""
        return [
            CaseScore(*where, case, labels[index + 1], value)
            for case, volume in cases
            for index, value in enumerate(
                dice_of(predict_mask(model, volume, run, should_stop), volume, run.data.classes)
            )
        ]

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


def make_loss(run: Run) -> Loss:
    """FLAP-SAM's loss: 0.2 cross-entropy + 0.8 Dice loss for ``dice_weight`` 0.8.

    The Dice loss uses the softmax probabilities of all classes, background included, and a squared denominator; it is
    computed over the whole batch.

    Returns:
        A function of logits (B, classes + 1, size, size) and labels (B, size, size) int64.
    """
    loss = DiceCELoss(
        to_onehot_y=True,
        softmax=True,
        squared_pred=True,
        batch=True,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
        lambda_dice=run.training.dice_weight,
        lambda_ce=1 - run.training.dice_weight,
    )
    return lambda logits, labels: loss(logits, labels.unsqueeze(1))


def _bounded(volume: Volume, cache: Cache) -> Volume:
    """The same volume, its voxels kept in memory or in mapped files as the cache's limits allow."""
    if volume.label is None:
        return replace(volume, image=cache.hold({"image": volume.image})["image"])
    voxels = cache.hold({"image": volume.image, "label": volume.label})
    return replace(volume, image=voxels["image"], label=voxels["label"])

"""What a segmentation model trains on, and its loss."""

from collections.abc import Callable
from dataclasses import replace

from monai.losses import DiceCELoss

from fedpeft.config.datasets import DATASETS, Preprocessing
from fedpeft.config.run import Run
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Site
from fedpeft.data.volumes.stacks import StackData
from fedpeft.data.volumes.volume import Volume, read_volume
from fedpeft.tasks.types import Loss


def stacks(run: Run, site: Site, before_read: Callable[[], None], cache: Cache) -> StackData:
    """The stacks of a site's training cases; ``before_read`` is called before each case is read."""
    return StackData(
        site.splits["training"],
        site.labels,
        DATASETS[run.data.dataset].preprocessing,
        run.model.image_size,
        batch=run.training.batch,
        stack=run.data.stack,
        stride=run.data.stride,
        negatives=run.data.background_ratio,
        whole=run.method.mixes_slices,
        before_read=before_read,
        cache=cache,
    )


def make_loss(run: Run) -> Loss:
    """FLAP-SAM's loss, 0.2 CE + 0.8 Dice for ``dice_weight`` 0.8.

    Dice is taken over softmax probabilities of all tokens, background included, with squared denominator, over the
    whole batch.

    Returns:
        A function of logits (B, classes + 1, side, side) and labels (B, side, side) int64.
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


def read_volumes(
    site: Site,
    split: str,
    preprocessing: Preprocessing,
    before_read: Callable[[], None] = lambda: None,
    cache: Cache | None = None,
) -> list[tuple[str, Volume]]:
    """A split's volumes by case, normalised as the data set says.

    Args:
        site: whose.
        split: which of its cases.
        preprocessing: the data set's.
        before_read: called before each case is read.
        cache: holds their voxels within its bounds; None: a new one.
    """
    volumes, cache = [], cache or Cache()
    for case in site.splits[split]:
        before_read()
        volume = read_volume(case, site.labels, preprocessing)
        voxels = {name: getattr(volume, name) for name in ("image", "label") if getattr(volume, name) is not None}
        volumes.append((case.case, replace(volume, **cache.hold(voxels))))
    return volumes

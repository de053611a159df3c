"""What a classifier of pictures trains on, its loss and its score."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from monai.losses import FocalLoss
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedpeft.config.run import Run
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Case, Site
from fedpeft.data.images.images import PictureData, normalised, read_pictures
from fedpeft.tasks.scores import CaseScore
from fedpeft.tasks.types import Loss, Stopped

# Pictures in a forward pass without gradients.
CHUNK = 64


@dataclass(frozen=True)
class Pictures:
    """A split's pictures in memory.

    Attributes:
        cases: in the datalist's order.
        pixels: (N, 3, side, side) uint8.
    """

    cases: tuple[Case, ...]
    pixels: Tensor


def pictures(run: Run, site: Site, before_read: Callable[[], None], cache: Cache) -> PictureData:
    """The pictures of a site's training cases; ``before_read`` is called before each is read."""
    return PictureData(
        site.splits["training"],
        run.data.classes,
        run.model.image_size,
        run.backbone.colours,
        batch=run.training.batch,
        before_read=before_read,
        cache=cache,
    )


def make_loss(run: Run, data: PictureData) -> Loss:
    """The run's loss at a site.

    "balanced": cross-entropy in which every class that occurs at the site weighs the same in an epoch, n / (k n_c) for
    n cases of k classes. The counts stay at the site. "plain": unweighted. "focal": Lin et al. 2017, gamma 2.

    Returns:
        A function of logits (B, classes) and classes (B,) int64.
    """
    if run.training.loss == "focal":
        focal = FocalLoss(use_softmax=True, to_onehot_y=True, include_background=True, gamma=2.0)
        return lambda logits, classes: focal(logits, classes[:, None])
    if run.training.loss == "plain":
        return cross_entropy
    return partial(_balanced, class_weights(data.counts))


def _balanced(weights: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
    # Not torch's own weighted mean: that divides by the batch's weights, so that a batch of one class has weight 1.
    values = cross_entropy(logits, classes, reduction="none")
    return (weights.to(logits.device)[classes] * values).mean()


def class_weights(counts: Tensor) -> Tensor:
    """Weights n / (k n_c), (classes,) float32; 1 for a class that does not occur, which no case uses."""
    occurs = counts > 0
    return torch.where(occurs, counts.sum() / (occurs.sum() * counts.clamp(min=1)), 1.0).float()


def read(
    site: Site, split: str, run: Run, before_read: Callable[[], None] = lambda: None, cache: Cache | None = None
) -> Pictures:
    """A split's pictures, fitted to the network's input; kept in ``cache``, if there is one."""
    cases = site.splits[split]
    if not cases:
        return Pictures((), torch.empty(0, 3, run.model.image_size, run.model.image_size, dtype=torch.uint8))
    return Pictures(tuple(cases), read_pictures(cases, run.model.image_size, before_read, cache))


@torch.inference_mode()
def predict(model: nn.Module, pixels: Tensor, run: Run, should_stop: Callable[[], bool] = lambda: False) -> Tensor:
    """Probabilities of all classes.

    Args:
        model: in evaluation mode.
        pixels: (N, 3, side, side) uint8.
        run: its backbone's colours normalise the pictures.
        should_stop: asked before every forward pass.

    Returns:
        (N, classes) float32 on the CPU.

    Raises:
        Stopped: ``should_stop`` said so.
    """
    device = next(model.parameters()).device
    found = [torch.empty(0, run.outputs)]
    for chunk in pixels.split(CHUNK) if len(pixels) else ():
        if should_stop():
            raise Stopped("stopped while predicting")
        found.append(model(normalised(chunk, run.backbone.colours).to(device)).float().softmax(dim=1).cpu())
    return torch.cat(found)


def score(
    model: nn.Module,
    items: Pictures,
    run: Run,
    labels: dict[int, str],
    where: tuple[str, str],
    should_stop: Callable[[], bool] = lambda: False,
) -> list[CaseScore]:
    """1 for a case whose class is the most probable one, else 0; probabilities beside it.

    Args:
        model: put into evaluation mode and back into the mode it was in.
        items: pictures with their classes.
        run: as in ``predict``.
        labels: index -> name.
        where: (site, split), kept in the scores.
        should_stop: as in ``predict``.

    Raises:
        ValueError: a case has no class.
    """
    site, split = where
    for case in items.cases:
        if case.target is None:
            raise ValueError(f"site {site}: case {case.case} has no label; it can be inferred, not scored")
    mode = model.training
    model.eval()
    try:
        probabilities = predict(model, items.pixels, run, should_stop)
    finally:
        model.train(mode)
    return [
        CaseScore(site, split, case.case, labels[case.target], float(row.argmax() == case.target), tuple(row.tolist()))
        for case, row in zip(items.cases, probabilities, strict=True)
    ]

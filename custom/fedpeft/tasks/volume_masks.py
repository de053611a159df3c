"""Segmentation: whole volumes in, masks and Dice on the original grid out."""

from collections.abc import Callable, Sequence

import torch
from monai.inferers import sliding_window_inference
from monai.metrics import compute_dice
from torch import Tensor, nn

from fedpeft.common.parallel import parallel_map
from fedpeft.common.precision import as_here
from fedpeft.config.run import Run
from fedpeft.data.volumes.fit import fit, unfit
from fedpeft.data.volumes.volume import Volume
from fedpeft.tasks.scores import CaseScore
from fedpeft.tasks.types import Stopped

# Slices of a piece of work on a processor: its cache holds no more, and each of torch's threads has one at a time.
PIECE = 5


@torch.inference_mode()
def predict(model: nn.Module, volume: Volume, run: Run, should_stop: Callable[[], bool] = lambda: False) -> Tensor:
    """The mask of a volume.

    Args:
        model: in evaluation mode.
        volume: normalised, slices along its last axis, (H, W, D).
        run: gives the input side, and how many slices make a stack and, on a GPU, a forward pass (batch * stack).
        should_stop: asked before every forward pass.

    Returns:
        uint8 labels (H, W, D) on the volume's own grid: the arg max is taken after the model's output came back to the
        native in-plane resolution, as the paper's evaluation does.

    Raises:
        Stopped: ``should_stop`` said so.
    """
    device = next(model.parameters()).device
    native, spacing = volume.image.shape[:2], volume.spacing[:2]
    slices = fit(volume.image.permute(2, 0, 1).contiguous(), spacing, run.model.image_size, "image")
    precision = as_here(device)

    @torch.inference_mode()
    def forward(images: Tensor) -> Tensor:
        if should_stop():
            raise Stopped("stopped while predicting")
        with precision():
            return model(images.to(device)).float().cpu()

    def masked(outputs: Tensor) -> Tensor:
        return largest(unfit(outputs, native, spacing))

    if run.method.mixes_slices:
        masks = map(masked, _overlapping(forward, slices, run).split(PIECE))
    elif device.type == "cpu":
        # A network without mixing gives a slice the same logits in every stack: each is computed once.
        masks = parallel_map(lambda images: masked(forward(images)), slices.unsqueeze(1).split(PIECE))
    else:
        masks = (masked(forward(images)) for images in slices.unsqueeze(1).split(run.training.batch * run.data.stack))
    return torch.cat(list(masks)).permute(1, 2, 0)


def largest(values: Tensor) -> Tensor:
    """The class of the largest of few values, (D, classes, H, W) -> uint8 (D, H, W); the first of equal ones.

    As ``argmax(dim=1)``, which walks through memory from class to class, and takes ten times as long.
    """
    best, found = values[:, 0], torch.zeros_like(values[:, 0], dtype=torch.uint8)
    for index in range(1, values.shape[1]):
        found.masked_fill_(values[:, index] > best, index)
        best = torch.maximum(best, values[:, index])
    return found


def _overlapping(forward: Callable[[Tensor], Tensor], slices: Tensor, run: Run) -> Tensor:
    """Probabilities (D, classes + 1, side, side): their mean over the stacks, ``stride`` apart, that hold a slice."""

    def stacks(images: Tensor) -> Tensor:
        # (n, 1, stack, side, side) -> slices of whole stacks, and back to (n, classes + 1, stack, side, side).
        logits = forward(images.transpose(1, 2).flatten(0, 1))
        return logits.softmax(dim=1).unflatten(0, (-1, run.data.stack)).transpose(1, 2)

    # MONAI rounds the distance of two windows down: a little less overlap keeps it at the stride.
    overlap = max(0.0, 1 - (run.data.stride + 1e-3) / run.data.stack)
    roi = (run.data.stack, run.model.image_size, run.model.image_size)
    # A volume thinner than a stack repeats its edge, as in training.
    found = sliding_window_inference(
        slices[None, None], roi, run.training.batch, stacks, overlap=overlap, padding_mode="replicate"
    )
    return found[0].transpose(0, 1)


def dice(mask: Tensor, label: Tensor, classes: int) -> list[float]:
    """Dice of the classes 1..classes between two label volumes of one shape; both empty gives 1."""
    one_hot = [torch.stack([volume == c for c in range(1, classes + 1)]).unsqueeze(0) for volume in (mask, label)]
    return compute_dice(*one_hot, include_background=True, ignore_empty=False)[0].tolist()


def score(
    model: nn.Module,
    volumes: Sequence[tuple[str, Volume]],
    run: Run,
    labels: dict[int, str],
    where: tuple[str, str],
    should_stop: Callable[[], bool] = lambda: False,
) -> list[CaseScore]:
    """Dice per case and class.

    Args:
        model: put into evaluation mode and back into the mode it was in.
        volumes: (case, volume with its label).
        run: as in ``predict``.
        labels: class index -> name, background included.
        where: (site, split), kept in the scores.
        should_stop: as in ``predict``.
    """
    site, split = where
    for case, volume in volumes:
        if volume.label is None:
            raise ValueError(f"site {site}: case {case} has no label; it can be inferred, not scored")
    mode = model.training
    model.eval()
    try:
        return [
            CaseScore(site, split, case, labels[index + 1], value)
            for case, volume in volumes
            for index, value in enumerate(dice_of(predict(model, volume, run, should_stop), volume, run.data.classes))
        ]
    finally:
        model.train(mode)


def dice_of(mask: Tensor, volume: Volume, classes: int) -> list[float]:
    """Dice on the file's own voxels: what a canvas added around them counts neither for nor against."""
    return dice(mask[volume.content], volume.label[volume.content], classes)

"""Predict the masks of whole volumes on their own grid, and compute Dice."""

from collections.abc import Callable, Iterable

import torch
from monai.inferers import sliding_window_inference
from monai.metrics import compute_dice
from torch import Tensor, nn

from fedpeft.common.parallel import parallel_map
from fedpeft.common.precision import as_here
from fedpeft.config.run import Run
from fedpeft.data.volumes.fit import fit, unfit
from fedpeft.data.volumes.volume import Volume
from fedpeft.tasks.types import Stopped

# Slices that a CPU thread processes at a time; more do not fit into a core's cache.
PIECE = 5


@torch.inference_mode()
def predict_mask(model: nn.Module, volume: Volume, run: Run, should_stop: Callable[[], bool] = lambda: False) -> Tensor:
    """Predict the mask of a volume.

    Args:
        model: in evaluation mode.
        volume: a normalised volume (H, W, D), slices along the last axis.
        run: gives the image size, the slices of a stack and, on a GPU, those of a forward pass (batch * stack).
        should_stop: asked before every forward pass.

    Returns:
        uint8 labels (H, W, D) on the volume's own grid. The model's output is resampled to the native in-plane
        resolution before the arg max, as in the FLAP-SAM paper's evaluation.

    Raises:
        Stopped: ``should_stop`` returned True.
    """
    device = next(model.parameters()).device
    native, spacing = (volume.image.shape[0], volume.image.shape[1]), volume.spacing[:2]
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

    masks: Iterable[Tensor]
    if run.method.mixes_slices:
        masks = map(masked, _overlapping(forward, slices, run).split(PIECE))
    elif device.type == "cpu":
        # A network that does not mix slices gives a slice the same logits in every stack, so each is computed once.
        masks = parallel_map(lambda images: masked(forward(images)), slices.unsqueeze(1).split(PIECE))
    else:
        masks = (masked(forward(images)) for images in slices.unsqueeze(1).split(run.training.batch * run.data.stack))
    return torch.cat(list(masks)).permute(1, 2, 0)


def largest(values: Tensor) -> Tensor:
    """The class with the largest value, (D, classes, H, W) -> uint8 (D, H, W); of equal values the first.

    The result is that of ``argmax(dim=1)``, which jumps in memory from class to class and takes ten times as long.
    """
    best, found = values[:, 0], torch.zeros_like(values[:, 0], dtype=torch.uint8)
    for index in range(1, values.shape[1]):
        found.masked_fill_(values[:, index] > best, index)
        best = torch.maximum(best, values[:, index])
    return found


def _overlapping(forward: Callable[[Tensor], Tensor], slices: Tensor, run: Run) -> Tensor:
    """Mean probabilities (D, classes + 1, size, size) over the stacks, ``stride`` apart, that contain a slice."""

    def stacks(images: Tensor) -> Tensor:
        # (n, 1, stack, size, size) -> slices of whole stacks, and back to (n, classes + 1, stack, size, size).
        logits = forward(images.transpose(1, 2).flatten(0, 1))
        return logits.softmax(dim=1).unflatten(0, (-1, run.data.stack)).transpose(1, 2)

    # MONAI rounds the distance of two windows down; slightly less overlap keeps the distance at the stride.
    overlap = max(0.0, 1 - (run.data.stride + 1e-3) / run.data.stack)
    roi = (run.data.stack, run.model.image_size, run.model.image_size)
    # A volume thinner than a stack repeats its edge, as in training.
    found = sliding_window_inference(
        slices[None, None], roi, run.training.batch, stacks, overlap=overlap, padding_mode="replicate"
    )
    return found[0].transpose(0, 1)


def dice(mask: Tensor, label: Tensor, classes: int) -> list[float]:
    """Dice of the classes 1 to ``classes`` between two label volumes of one shape; 1 where both are empty."""
    one_hot = [torch.stack([volume == c for c in range(1, classes + 1)]).unsqueeze(0) for volume in (mask, label)]
    return compute_dice(*one_hot, include_background=True, ignore_empty=False)[0].tolist()


def dice_of(mask: Tensor, volume: Volume, classes: int) -> list[float]:
    """Dice against a volume's own label, over the file's voxels alone, without the padding around them.

    Raises:
        ValueError: the volume has no label.
    """
    if volume.label is None:
        raise ValueError(f"case {volume.case} has no label; it can be inferred, not scored")
    return dice(mask[volume.content], volume.label[volume.content], classes)

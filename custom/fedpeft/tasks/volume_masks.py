"""Predict the masks of whole volumes on their own grid, and compute Dice."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from monai.metrics import compute_dice
from torch import Tensor, nn

from fedpeft.common.parallel import parallel_map
from fedpeft.common.precision import as_here
from fedpeft.config.run import Run
from fedpeft.data.volumes.fit import FITS, Fit
from fedpeft.data.volumes.positions import ENDS, positions
from fedpeft.data.volumes.slices import FittedSlices, fit_slices, scaled
from fedpeft.data.volumes.volume import Volume
from fedpeft.tasks.types import Stopped

# Slices that a CPU thread processes at a time; more do not fit into a core's cache.
PIECE = 5
# Images (n, 1, size, size) -> logits (n, classes + 1, size, size).
Forward = Callable[[Tensor], Tensor]
# Indices of neighbouring slices -> what is resampled to native resolution, (slices, classes + 1, size, size).
Outputs = Callable[[range], Tensor]


@torch.inference_mode()
def predict_mask(model: nn.Module, volume: Volume, run: Run, should_stop: Callable[[], bool] = lambda: False) -> Tensor:
    """Predict the mask of a volume.

    A network that mixes slices predicts overlapping stacks, and a slice has the mean of their probabilities. So does
    any network where each stack is scaled by its own range: a slice then costs a forward pass for every different range
    among its stacks, five at most with five slices and a stride of 1.

    Args:
        model: in evaluation mode.
        volume: a normalised volume (H, W, D), slices along the last axis; its preprocessing says how slices and stacks
            become the network's input.
        run: gives the image size, the stacks and, on a GPU, the slices of a forward pass (batch * stack).
        should_stop: asked before every forward pass.

    Returns:
        uint8 labels (H, W, D) on the volume's own grid. The model's output is resampled to the native in-plane
        resolution before the arg max, as in the FLAP-SAM paper's evaluation.

    Raises:
        Stopped: ``should_stop`` returned True.
    """
    device = next(model.parameters()).device
    native, spacing = (volume.image.shape[0], volume.image.shape[1]), volume.spacing[:2]
    slices, way = fit_slices(volume, run.model.image_size), FITS[volume.preprocessing.fit]
    precision = as_here(device)

    @torch.inference_mode()
    def forward(images: Tensor) -> Tensor:
        if should_stop():
            raise Stopped("stopped while predicting")
        with precision():
            return model(images.to(device)).float().cpu()

    def masked(outputs: Tensor) -> Tensor:
        return largest(way.native(outputs, native, spacing))

    masks: Iterable[Tensor]
    if run.method.mixes_slices:
        masks = map(masked, _overlapping(forward, slices, run).split(PIECE))
        return torch.cat(list(masks)).permute(1, 2, 0)
    piece = PIECE if device.type == "cpu" else run.training.batch * run.data.stack
    each = _averaged(forward, slices, run, piece) if slices.limits is not None else _once(forward, slices, way)
    pieces = [range(len(slices.image))[start : start + piece] for start in range(0, len(slices.image), piece)]
    if device.type == "cpu":
        masks = parallel_map(lambda wanted: masked(each(wanted)), pieces)
    else:
        masks = (masked(each(wanted)) for wanted in pieces)
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


def _once(forward: Forward, slices: FittedSlices, way: Fit) -> Outputs:
    """What a network that does not mix slices gives slices that are the same in every stack: each is computed once."""

    def outputs(wanted: range) -> Tensor:
        logits = forward(slices.image[wanted.start : wanted.stop, None])
        return logits.softmax(dim=1) if way.of_probabilities else logits

    return outputs


def _averaged(forward: Forward, slices: FittedSlices, run: Run, most: int) -> Outputs:
    """Mean probabilities of slices over their stacks, for a network that does not mix slices.

    Stacks of one range give a slice the same input, so it is computed once for each different range.

    Args:
        forward: images (n, 1, size, size) -> logits.
        slices: with limits.
        run: says where stacks lie.
        most: images of a forward pass.
    """
    stacks = _stacks(slices, run)
    limits = slices.stack_limits(stacks)

    def outputs(wanted: range) -> Tensor:
        ranges = [limits[(stacks == index).any(axis=1)].unique(dim=0, return_counts=True) for index in wanted]
        counts = [count / count.sum() for _, count in ranges]
        images = [scaled(slices.image[index], own) for index, (own, _) in zip(wanted, ranges, strict=True)]
        found = [forward(part).softmax(dim=1) for part in torch.cat(images)[:, None].split(most)]
        each = torch.cat(found).split([len(count) for count in counts])
        # No product of matrices, which autocast would round.
        means = [(count[:, None, None, None] * values).sum(dim=0) for count, values in zip(counts, each, strict=True)]
        return torch.stack(means)

    return outputs


def _overlapping(forward: Forward, slices: FittedSlices, run: Run) -> Tensor:
    """Mean probabilities (D, classes + 1, size, size) over a slice's stacks, for a network that mixes slices."""
    depth, stacks = len(slices.image), _stacks(slices, run)
    total = torch.zeros(depth, run.outputs, *slices.image.shape[1:])
    count = torch.zeros(depth, 1, 1, 1)
    for first in range(0, len(stacks), run.training.batch):
        part = stacks[first : first + run.training.batch]
        images = torch.cat([slices.stack(stack) for stack in part])
        found = forward(images[:, None]).softmax(dim=1).unflatten(0, part.shape)
        for stack, values in zip(part, found, strict=True):
            # A slice that repeats an end only fills its stack.
            inside = (stack >= 0) & (stack < depth)
            total[stack[inside]] += values[torch.from_numpy(inside)]
            count[stack[inside]] += 1
    return total / count


def _stacks(slices: FittedSlices, run: Run) -> np.ndarray:
    """Positions (stacks, stack) of stacks that together hold every slice."""
    starts = ENDS[run.data.stack_ends].covering(len(slices.image), run.data.stack, run.data.stride)
    return positions(starts, run.data.stack)


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

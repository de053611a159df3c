"""The training loop, shared by every method, task and setting."""

from collections.abc import Callable, Iterable

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.optim import Optimizer

from fedpeft.spec.run import Run

Batch = tuple[Tensor, Tensor]


class Stopped(Exception):
    """Training was asked to stop; what it had computed is not to be used."""


def make_loss(run: Run) -> Callable[[Tensor, Tensor], Tensor]:
    """The paper's loss, 0.2 CE + 0.8 Dice for ``dice_weight`` 0.8.

    Dice is taken over softmax probabilities of all tokens, background included, with squared denominator, over the
    whole batch.

    Returns:
        A function of logits (B, classes + 1, side, side) and labels (B, side, side) int64.
    """
    loss = DiceCELoss(
        to_onehot_y=True, softmax=True, squared_pred=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5,
        lambda_dice=run.dice_weight, lambda_ce=1 - run.dice_weight,
    )
    return lambda logits, labels: loss(logits, labels.unsqueeze(1))


def train_epoch(
    model: nn.Module,
    optimiser: Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[Batch],
    step_size: Callable[[int], float],
    should_stop: Callable[[], bool],
) -> list[float]:
    """One pass over ``batches``.

    Args:
        model: in training mode on the device of its parameters.
        optimiser: over the model's trainable tensors.
        loss: of logits and labels.
        batches: pairs of images (B, 1, side, side) and labels (B, side, side).
        step_size: step index in the epoch, 0-based -> step size.
        should_stop: asked before every step.

    Returns:
        The loss of every step.

    Raises:
        Stopped: ``should_stop`` said so.
        ValueError: the loss is not finite; nothing was stepped with it.
    """
    device = next(model.parameters()).device
    losses = []
    for index, (images, labels) in enumerate(batches):
        if should_stop():
            raise Stopped(f"stopped before step {index}")
        for group in optimiser.param_groups:
            group["lr"] = step_size(index)
        value = loss(model(images.to(device)), labels.to(device))
        if not torch.isfinite(value):
            raise ValueError(f"the loss of step {index} is {value.item()}: check the data, or lower the learning rate")
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return losses

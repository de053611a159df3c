"""The training loop of every method, task and setting."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from fedpeft.common.precision import computing
from fedpeft.tasks.types import Batch, Loss, Stopped
from fedpeft.training.engine.optimiser import AdamW


def train_epoch(
    model: nn.Module,
    optimiser: AdamW,
    loss: Loss,
    batches: Iterable[Batch],
    learning_rate_at: Callable[[int], float],
    should_stop: Callable[[], bool],
    precision: str = "float32",
) -> list[float]:
    """Train one step on each of ``batches``.

    Args:
        model: in training mode on the device of its parameters.
        optimiser: the optimiser of the model's trainable tensors.
        loss: function of the model's output and the labels.
        batches: pairs of images and labels, in the task's form.
        learning_rate_at: 0-based index of a step in ``batches`` -> the run's learning rate.
        should_stop: asked before every step.
        precision: of the model's matrix products (``run.training.precision``); the loss is computed in float32, or in
            float64 if the model is.

    Returns:
        The loss of every step.

    Raises:
        Stopped: ``should_stop`` returned True.
        ValueError: the loss is not finite; no step was taken with it.
    """
    device = next(model.parameters()).device
    losses = []
    for index, (images, labels) in enumerate(batches):
        if should_stop():
            raise Stopped(f"stopped before step {index}")
        optimiser.set_learning_rate(learning_rate_at(index))
        with computing(precision, device):
            output = model(images.to(device))
        exact = output if output.dtype == torch.float64 else output.float()
        value = loss(exact, labels.to(device))
        if not torch.isfinite(value):
            raise ValueError(f"the loss of step {index} is {value.item()}: check the data, or lower the learning rate")
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return losses

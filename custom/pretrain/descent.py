"""What all pretraining shares: steps on fresh batches with averaged weights, progress, and the file of weights."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import __version__ as safetensors_version
from torch import Tensor, nn

from fedpeft.common.files import sha256_of, write_json, write_tensors
from fedpeft.config.run import Run
from fedpeft.models.initial import named_tensors
from fedpeft.models.payload import trainable
from fedpeft.tasks.types import Batch, Loss
from fedpeft.training.engine.loop import train_epoch
from fedpeft.training.engine.optimiser import make_optimiser
from fedpeft.training.engine.schedule import learning_rate_at

# Every CHUNK steps the averaged weights keep the share KEEP of themselves, so they average about a hundred steps.
CHUNK = 10
KEEP = 0.9

Report = Callable[[int, float], None]


def descend(
    model: nn.Module, run: Run, loss: Loss, batch: Callable[[int], Batch], steps: int, report: Report
) -> list[float]:
    """Train ``model`` and leave it with its averaged weights, in evaluation mode.

    Args:
        model: every ``CHUNK`` steps its averaged weights move 1 - ``KEEP`` of the way to the present ones.
        run: gives optimiser and learning rates.
        loss: function of the model's output and the batch's second part.
        batch: number of a step -> its batch.
        steps: number of optimiser steps.
        report: called every ``CHUNK`` steps with the steps done and the mean loss since the last call.

    Returns:
        The loss of every step.
    """
    parameters = trainable(model.train())
    optimiser = make_optimiser(run, parameters)
    mean = {path: parameter.detach().clone() for path, parameter in parameters.items()}
    losses: list[float] = []
    while len(losses) < steps:
        done = len(losses)
        batches = map(batch, range(done, min(done + CHUNK, steps)))
        losses += train_epoch(
            model,
            optimiser,
            loss,
            batches,
            lambda index, done=done: learning_rate_at(run, (done + index) / steps),
            should_stop=lambda: False,
        )
        # Early on the mean follows closely, so that it forgets the random start.
        weight = max(1 - KEEP, CHUNK / len(losses))
        for path, parameter in parameters.items():
            mean[path].lerp_(parameter.detach(), weight)
        report(len(losses), sum(losses[done:]) / (len(losses) - done))
    with torch.no_grad():
        for path, parameter in parameters.items():
            parameter.copy_(mean[path])
    model.eval()
    return losses


def write(out: Path, model: nn.Module, run: Run, facts: dict[str, Any]) -> None:
    """Write the weights without the backbone's ``fresh`` tensors, and ``facts`` in a JSON file beside them.

    Args:
        out: the .safetensors file.
        model: the pretrained model.
        run: its recipe.
        facts: what the JSON file says in addition to recipe, versions, size and SHA-256.
    """
    write_tensors(
        out,
        {path: tensor for path, tensor in named_tensors(model).items() if not path.startswith(run.backbone.fresh)},
    )
    versions = {"torch": torch.__version__, "safetensors": safetensors_version}
    write_json(
        out.with_suffix(".json"),
        facts
        | {
            "recipe": run.to_dict(),
            "versions": versions,
            "bytes": out.stat().st_size,
            "sha256": sha256_of(out),
        },
    )


def normalised(pixels: Tensor, run: Run) -> Tensor:
    """Images (B, 3, image_size, image_size), 0 to 1, normalised by the backbone's colours, like a task's images."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in run.backbone.colours)
    return (pixels - mean) / deviation


def ends(losses: list[float]) -> dict[str, float]:
    """The first loss and the mean of the last fifty."""
    return {"first": losses[0], "last": sum(losses[-50:]) / len(losses[-50:])}


def progress(steps: int) -> Report:
    """A report that prints step, loss, elapsed and remaining time every fifth chunk and at the end."""
    started = time.monotonic()

    def report(done: int, loss: float) -> None:
        if done % (5 * CHUNK) and done != steps:
            return
        gone = time.monotonic() - started
        left = gone / done * (steps - done)
        print(f"step {done:5d}/{steps}  loss {loss:.4f}  {gone / 60:5.1f} min gone, {left / 60:5.1f} left", flush=True)

    return report

"""Pretrain a backbone on synthetic images and write the file that ships with the package.

    python -m pretrain.train --out custom/fedpeft/models/weights/sam_tiny.safetensors

takes about 25 minutes on one core. Every tensor trains, on images that never repeat, and the weights, averaged over the
last steps, are saved. A JSON file beside them says how they were made and what they score. The same seed and steps give
the same file on one machine, because torch runs with one thread.
"""

import argparse
import shlex
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from fedpeft.config.run import Run, make_run
from fedpeft.config.seeds import seed_of
from fedpeft.models.initial import build
from fedpeft.tasks.segmentation import make_loss
from pretrain.descent import CHUNK, Report, descend, ends, progress, write
from pretrain.images import CLASSES, draw

STEPS = 2800
SCORED = 512


def recipe(seed: int = 0, backbone: str = "sam_tiny") -> Run:
    """The pretraining as a run: plain supervised training of all tensors, images one by one instead of in stacks."""
    return make_run(
        "full_ft",
        "synthetic",
        backbone=backbone,
        classes=len(CLASSES) - 1,
        seed=seed,
        rounds=1,
        batch=16,
        stack=1,
        stride=1,
        learning_rate=2e-3,
        weight_decay=0.05,
        dice_weight=0.5,
    )


def pretrain(run: Run, steps: int, report: Report) -> tuple[nn.Module, list[float]]:
    """Train from random weights.

    Args:
        run: from ``recipe``.
        steps: optimiser steps of ``run.training.batch`` fresh images.
        report: see ``descend``.

    Returns:
        The model with its averaged weights, in evaluation mode, and the loss of every step.
    """
    model = build(run, None)
    return model, descend(model, run, make_loss(run), partial(_batch, run), steps, report)


@torch.no_grad()
def score(model: nn.Module, run: Run, images: int = SCORED) -> dict[str, float]:
    """Dice on held-out images by class, each the mean over the images with the class, and the mean over classes."""
    found: list[list[float]] = [[] for _ in CLASSES]
    for start in range(0, images, run.training.batch):
        image, label = draw(run.training.batch, seed_of("held out", run.training.seed, start), run.model.image_size)
        mask = model(image).argmax(dim=1)
        for index, values in enumerate(found):
            predicted, true = mask == index, label == index
            size = true.sum(dim=(1, 2))
            dice = 2 * (predicted & true).sum(dim=(1, 2)) / (predicted.sum(dim=(1, 2)) + size).clamp(min=1)
            values += dice[size > 0].tolist()
    by_class = {name: sum(values) / max(len(values), 1) for name, values in zip(CLASSES, found, strict=True)}
    return {"mean": sum(by_class.values()) / len(by_class)} | by_class


def main(arguments: list[str] | None = None) -> None:
    """Train, score, write."""
    options = _parse(arguments)
    torch.set_num_threads(1)
    run = recipe(options.seed, options.backbone)
    steps = _steps_in(run, options.minutes) if options.minutes else options.steps
    started = time.monotonic()
    model, losses = pretrain(run, steps, progress(steps))
    seconds, scores = time.monotonic() - started, score(model, run)
    words = [
        "--out",
        options.out.name,
        "--backbone",
        run.model.backbone,
        "--steps",
        str(steps),
        "--seed",
        str(run.training.seed),
    ]
    write(
        options.out,
        model,
        run,
        {
            "command": shlex.join(["python", "-m", "pretrain.train", *words]),
            "seed": run.training.seed,
            "steps": steps,
            "images": steps * run.training.batch,
            "seconds": round(seconds),
            "threads": 1,
            "loss": ends(losses),
            "score": {name: round(value, 4) for name, value in scores.items()},
        },
    )
    print(f"{options.out}: mean Dice {scores['mean']:.3f} on {SCORED} held-out images, {seconds / 60:.0f} minutes")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line's options, checked."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.train", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file; a .json is written beside it")
    parser.add_argument("--backbone", default="sam_tiny")
    parser.add_argument("--steps", type=int, default=STEPS, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="as many steps as fit into so much time, instead of --steps")
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.out.suffix != ".safetensors":
        parser.error(f"--steps {options.steps} --out {options.out}: expected 1 or more, and a .safetensors file")
    return options


def _batch(run: Run, step: int) -> tuple[Tensor, Tensor]:
    """Fresh images for a step."""
    return draw(run.training.batch, seed_of("pretraining", run.training.seed, step), run.model.image_size)


def _steps_in(run: Run, minutes: float) -> int:
    """Number of steps that fit into the time, from the speed of the second half of a short trial run."""
    times: list[float] = []
    pretrain(run, 2 * CHUNK, lambda done, loss: times.append(time.monotonic()))
    return max(1, int(60 * minutes / (times[1] - times[0]) * CHUNK))


if __name__ == "__main__":
    main()

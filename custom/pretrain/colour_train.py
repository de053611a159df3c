"""Pretrain ``vit_tiny`` on synthetic images and write the file that ships with the package.

    python -m pretrain.colour_train --out custom/fedpeft/models/weights/vit_tiny.safetensors

takes about half an hour on one core. The class token learns to name ten attributes of images that never repeat, every
other token the surface and the edges at its place. The weights, averaged over the last steps, are saved without the
head. A JSON file beside them says how they were made, how well they name the attributes of held-out images, and how
well a linear probe tells unseen figures and textures apart, with these weights and with random ones. The same seed and
steps give the same file on one machine, because torch runs with one thread.
"""

import argparse
import shlex
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedpeft.config.run import Run, make_run
from fedpeft.config.seeds import seed_of
from fedpeft.models.initial import build
from fedpeft.tasks.types import Batch
from pretrain.colour_images import TRAINED, UNSEEN, Kinds, draw
from pretrain.descent import Report, descend, ends, normalised, progress, write
from pretrain.places import of_place, places
from pretrain.probe import features_of, probe

STEPS = 3600
IMAGES = 1024
# Numbers of outputs for the attributes of an image, and of a place in it.
SIZES = [len(values) for values in TRAINED.attributes.values()]
PLACE = [len(values) for values in of_place(TRAINED).values()]
# The probe tells these apart among unseen figures and textures; the other attributes are the same as in pretraining.
NEW = ("figure", "texture", "texture of the ground")


class Namer(nn.Module):
    """A Vision Transformer whose head classifies every token instead of the class token alone.

    Args:
        classifier: with ``image_encoder`` and ``head``.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, image_size, image_size) -> logits (B, 1 + places, outputs), the class token's first."""
        encoder = self.classifier.image_encoder
        tokens = encoder.tokens(images)
        for block in encoder.blocks:
            tokens = block(tokens)
        return self.classifier.head(encoder.norm(tokens))


def recipe(seed: int = 0, backbone: str = "vit_tiny") -> Run:
    """The pretraining as a run: plain supervised training of all tensors, an output for every value of an attribute."""
    return make_run(
        "full_ft",
        "images",
        backbone=backbone,
        classes=sum(SIZES + PLACE),
        seed=seed,
        rounds=1,
        batch=32,
        learning_rate=1e-3,
        weight_decay=0.05,
        initial="random",
    )


def loss(logits: Tensor, attributes: Tensor) -> Tensor:
    """The mean cross-entropy over an image's attributes, and the mean over those of all its places.

    Args:
        logits: of ``Namer``.
        attributes: of the image, then of each place, (B, attributes + places * attributes of a place) int64.
    """
    whole, places = attributes.split([len(SIZES), attributes.shape[1] - len(SIZES)], dim=1)
    of_whole = _mean(logits[:, 0, : sum(SIZES)], whole, SIZES)
    of_places = logits[:, 1:, sum(SIZES) :].flatten(0, 1)
    return of_whole + _mean(of_places, places.reshape(len(of_places), len(PLACE)), PLACE)


def _mean(logits: Tensor, attributes: Tensor, sizes: list[int]) -> Tensor:
    parts = zip(logits.split(sizes, dim=1), attributes.unbind(dim=1), strict=True)
    return torch.stack([cross_entropy(*part) for part in parts]).mean()


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
    return model, descend(Namer(model), run, loss, partial(_batch, run), steps, report)


@torch.no_grad()
def score(model: nn.Module, run: Run, count: int = IMAGES) -> dict[str, float]:
    """Accuracy on held-out images by attribute, and the mean over attributes."""
    images, attributes = _others(run, count, "held out", TRAINED)
    found = [part.argmax(dim=1) for part in features_of(model, images)[:, : sum(SIZES)].split(SIZES, dim=1)]
    right = (torch.stack(found, dim=1) == attributes).double().mean(dim=0).tolist()
    return {"mean": fmean(right)} | dict(zip(TRAINED.attributes, right, strict=True))


def on_new_kinds(features: Callable[[Tensor], Tensor], run: Run, count: int = IMAGES) -> float:
    """Mean balanced accuracy of linear probes on images of figures and textures that pretraining never shows."""
    (train, known), (test, truth) = (_others(run, count, part, UNSEEN) for part in ("fit", "probe"))
    train, test = features_of(features, train), features_of(features, test)
    columns = [list(UNSEEN.attributes).index(name) for name in NEW]
    return fmean(probe((train, known[:, column]), (test, truth[:, column])) for column in columns)


def main(arguments: list[str] | None = None) -> None:
    """Train, score, write."""
    options = _parse(arguments)
    torch.set_num_threads(1)
    run, started = recipe(options.seed, options.backbone), time.monotonic()
    model, losses = pretrain(run, options.steps, progress(options.steps))
    seconds, scores = time.monotonic() - started, score(model, run)
    new = {"pretrained": on_new_kinds(model.features, run), "random": on_new_kinds(build(run, None).features, run)}
    words = [
        "--out",
        options.out.name,
        "--backbone",
        run.model.backbone,
        "--steps",
        options.steps,
        "--seed",
        run.training.seed,
    ]
    write(
        options.out,
        model,
        run,
        {
            "command": shlex.join(["python", "-m", "pretrain.colour_train", *map(str, words)]),
            "seed": run.training.seed,
            "steps": options.steps,
            "images": options.steps * run.training.batch,
            "seconds": round(seconds),
            "threads": 1,
            "loss": ends(losses),
            "score": {name: round(value, 4) for name, value in scores.items()},
            "probe": {name: round(value, 4) for name, value in new.items()},
        },
    )
    print(
        f"{options.out}: {scores['mean']:.3f} of the attributes named on {IMAGES} held-out images, probe on new "
        f"kinds {new['pretrained']:.3f} (random weights {new['random']:.3f}), {seconds / 60:.0f} minutes"
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line's options, checked."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.colour_train", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file; a .json is written beside it")
    parser.add_argument("--backbone", default="vit_tiny")
    parser.add_argument("--steps", type=int, default=STEPS, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.out.suffix != ".safetensors":
        parser.error(f"--steps {options.steps} --out {options.out}: expected 1 or more, and a .safetensors file")
    return options


def _batch(run: Run, step: int) -> Batch:
    """Fresh images for a step, their attributes and those of their places."""
    pixels, attributes, inside = draw(
        run.training.batch, seed_of("pretraining", run.training.seed, step), run.model.image_size
    )
    labels = places(pixels, attributes, inside, run.backbone.patch)
    return normalised(pixels, run), torch.cat([attributes, labels.flatten(1)], dim=1)


def _others(run: Run, count: int, name: str, kinds: Kinds) -> Batch:
    """Images that ``_batch`` never makes, and their attributes."""
    pixels, attributes, _ = draw(count, seed_of(name, run.training.seed), run.model.image_size, kinds)
    return normalised(pixels, run), attributes


if __name__ == "__main__":
    main()

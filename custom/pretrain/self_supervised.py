"""Pretrain a backbone on the training images of one site, without their labels: a medical model to start from.

    python -m pretrain.self_supervised --data data/ham10000 --site centre-1 --out medical.safetensors

takes about ten minutes on one core. The model learns to recognise two views of an image among those of other images
(SimCLR, Chen et al. 2020): the features of both pass through a small projection, in which each view's nearest
neighbour must be its partner. Training starts from random weights, or with ``--start generic`` from the package's own.
A JSON file beside the weights names the site and the images, so that users can show that no evaluation contains them.
Weights that were trained on other people's images have their licence, so the package ships no such file.
"""

import argparse
import shlex
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from fedpeft.common.files import sha256_of
from fedpeft.config.backbones import BACKBONES
from fedpeft.config.run import Run, make_run
from fedpeft.config.seeds import seed_of
from fedpeft.data.datalist import Case, read_sites
from fedpeft.data.images.images import read_images
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.tasks.types import Batch
from pretrain.descent import Report, descend, ends, normalised, progress, write
from pretrain.views import view

STEPS = 400
TEMPERATURE = 0.2
# Width of the projection, which is discarded after training.
PROJECTION = 128
STARTS = ("random", "generic")


class Recogniser(nn.Module):
    """A classifier's features and a projection of them, on which views are compared.

    Args:
        classifier: with ``features``.
        width: of the features.
    """

    def __init__(self, classifier: nn.Module, width: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.projection = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, PROJECTION))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, image_size, image_size) -> (B, ``PROJECTION``)."""
        return self.projection(self.classifier.features(images))


def recipe(seed: int = 0, backbone: str = "vit_tiny", start: str = "random") -> Run:
    """The pretraining as a run that trains all tensors; the head has no effect."""
    return make_run(
        "full_ft",
        "images",
        backbone=backbone,
        classes=2,
        seed=seed,
        rounds=1,
        batch=64,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup=0.1,
        initial=start,
    )


def agreement(projected: Tensor, partners: Tensor) -> Tensor:
    """The loss of not finding each view's partner: NT-Xent, Chen et al. 2020, equation 1.

    Args:
        projected: (N, width).
        partners: (N,) int64, the index of each view's partner.
    """
    directions = normalize(projected, dim=1)
    likeness = directions @ directions.T / TEMPERATURE
    itself = torch.eye(len(likeness), dtype=torch.bool, device=likeness.device)
    return cross_entropy(likeness.masked_fill(itself, float("-inf")), partners)


def pretrain(
    run: Run, pixels: Tensor, steps: int, report: Report, start: Path | None = None
) -> tuple[nn.Module, list[float]]:
    """Train on images without labels.

    Args:
        run: from ``recipe``.
        pixels: images (N, 3, image_size, image_size) uint8.
        steps: optimiser steps of two views each of ``run.training.batch`` images, or of all where there are fewer.
        report: see ``descend``.
        start: weights to start from; None: random ones.

    Returns:
        The classifier with averaged weights, in evaluation mode, and the loss of every step.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed_of("projection", run.training.seed))
        model = Recogniser(build(run, start), run.backbone.dim)
    losses = descend(model, run, agreement, partial(_batch, run, pixels), steps, report)
    return model.classifier, losses


def main(arguments: list[str] | None = None) -> None:
    """Read, train, write."""
    options, parser = _parse(arguments)
    torch.set_num_threads(1)
    run = recipe(options.seed, options.backbone, options.start)
    try:
        cases = training_cases(options.data, options.site)
        start, pixels = _start(run), read_images(cases, run.model.image_size)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    started = time.monotonic()
    model, losses = pretrain(run, pixels, options.steps, progress(options.steps), start)
    write(
        options.out,
        model,
        run,
        {
            "command": _command(options),
            "seed": run.training.seed,
            "steps": options.steps,
            "start": options.start,
            "start_sha256": sha256_of(start) if start else None,
            "seconds": round(time.monotonic() - started),
            "threads": 1,
            "loss": ends(losses),
            "site": options.site,
            "cases": [{"case": case.case, "group": case.group} for case in cases],
        },
    )
    print(f"{options.out}: {len(cases)} images of {options.site}, loss {losses[0]:.3f} to {ends(losses)['last']:.3f}")


def training_cases(data: Path, site: str) -> tuple[Case, ...]:
    """The training images of a site.

    Raises:
        FileNotFoundError: the folder holds no site.
        ValueError: it has no such site, or the site's cases are not images or fewer than two.
    """
    sites = {item.name: item for item in read_sites(data)}
    if site not in sites:
        raise ValueError(f"--site {site}: not in {data}, expected one of {', '.join(sites)}")
    if sites[site].task != "classification":
        raise ValueError(f"--site {site}: its cases are for {sites[site].task}, expected images for classification")
    cases = sites[site].cases("training")
    if len(cases) < 2:
        raise ValueError(f"--site {site}: {len(cases)} training image, expected two or more to tell apart")
    return cases


def _start(run: Run) -> Path | None:
    """The weights to start from; None for random ones.

    Raises:
        ValueError: the backbone has none in the package.
    """
    if run.model.initial == "random":
        return None
    if (file := shipped(run.backbone)) is None:
        raise ValueError(
            f"--start {run.model.initial}: no weights of {run.model.backbone} are shipped; give --start random"
        )
    return file


def _batch(run: Run, pixels: Tensor, step: int) -> Batch:
    """Two views of some of the images, all first views first, and the index of each view's partner."""
    generator = torch.Generator().manual_seed(seed_of("pictures", run.training.seed, step))
    chosen = pixels[torch.randperm(len(pixels), generator=generator)[: run.training.batch]].float() / 255
    views = torch.cat([view(chosen, seed_of("view", run.training.seed, step, number)) for number in range(2)])
    return normalised(views, run), torch.arange(len(views)).roll(len(chosen))


def _command(options: argparse.Namespace) -> str:
    words = [
        "--data",
        options.data.name,
        "--site",
        options.site,
        "--out",
        options.out.name,
        "--backbone",
        options.backbone,
        "--start",
        options.start,
        "--steps",
        options.steps,
        "--seed",
        options.seed,
    ]
    return shlex.join(["python", "-m", "pretrain.self_supervised", *map(str, words)])


def _parse(arguments: list[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """The command line's options, checked, and the parser for further errors."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.self_supervised", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of <site>/datalist.json")
    parser.add_argument("--site", required=True, help="whose training images are used")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file; a .json is written beside it")
    parser.add_argument("--start", choices=STARTS, default=STARTS[0], help="weights to start from, default %(default)s")
    backbones = [name for name, entry in BACKBONES.items() if entry.family == "vit"]
    parser.add_argument("--backbone", choices=backbones, default="vit_tiny", help="default %(default)s")
    parser.add_argument("--steps", type=int, default=STEPS, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.out.suffix != ".safetensors":
        parser.error(f"--steps {options.steps} --out {options.out}: expected 1 or more, and a .safetensors file")
    return options, parser


if __name__ == "__main__":
    main()

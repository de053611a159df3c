"""Local and centralized training: a federation of one, in this process.

The same rounds, the same site code and the same averaging as in a federation; with one site the average of products is
that site's own product, brought into the balanced, aligned form. So the settings differ in who averages, and in nothing
else.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from fedpeft.algebra.average import average_parcel
from fedpeft.algebra.codec import roundtrip
from fedpeft.data.datalist import Site
from fedpeft.model.checkpoint import sha256_of
from fedpeft.model.initial import build, digest
from fedpeft.model.parcel import trainable
from fedpeft.spec.run import Run
from fedpeft.train.evaluate import class_means
from fedpeft.train.run_folder import RunFolder
from fedpeft.train.site import SiteTrainer


def train_alone(
    run: Run, site: Site, checkpoint: Path, out: Path, setting: str, report: Callable[[dict[str, Any]], None],
    device: str = "cpu",
) -> RunFolder:
    """Train one site (or the pooled sites) by itself for all rounds.

    Args:
        run: what to train.
        site: its cases.
        checkpoint: the backbone's.
        out: the run folder; optimiser moments are kept beside it while the run lasts.
        setting: "local" or "centralized", for run.json.
        report: called with the record of every round.
        device: torch device.
    """
    model = build(run, checkpoint)
    folder = RunFolder(out)
    folder.start(run, setting, sha256_of(checkpoint), digest(model))
    state = out.parent / f"{out.name}.state"
    # A run that was killed before could not take its moments away.
    shutil.rmtree(state, ignore_errors=True)
    try:
        _rounds(SiteTrainer(run, site, model, state, device), folder, report)
    except BaseException as fault:
        folder.finish(f"failed: {fault or type(fault).__name__}")
        raise
    finally:
        shutil.rmtree(state, ignore_errors=True)
    folder.finish("finished")
    return folder


def _rounds(trainer: SiteTrainer, folder: RunFolder, report: Callable[[dict[str, Any]], None]) -> None:
    """All rounds; the model that enters a round is validated before it, the last one after the last round."""
    run, site = trainer.run, trainer.site
    tensors = {key: tensor.detach().cpu().clone() for key, tensor in trainable(trainer.model).items()}
    best = -1.0
    for round_ in range(run.rounds + 1):
        # As in a federation, a round starts from what the codec leaves of the tensors.
        tensors = roundtrip(tensors, run.codec)
        dice = class_means(trainer.validate(tensors))
        folder.metrics(round_, "validation", {site.name: dice})
        if dice and fmean(dice.values()) > best:
            best = fmean(dice.values())
            folder.keep_best(tensors, round_, best)
        if round_ == run.rounds:
            return
        update = trainer.train(tensors, round_)
        difference = roundtrip(update.difference, run.codec)
        tensors, averaging = average_parcel(tensors, [difference], [1.0], run.method_row.rule_of)
        record = {
            "sites": {site.name: {"dice": dice, "loss": update.loss, "cases": update.cases}},
            "seconds": update.seconds, "averaging": averaging,
        }
        folder.record(round_, record, tensors)
        report({"round": round_} | record)

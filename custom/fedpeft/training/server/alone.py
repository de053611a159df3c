"""Local and centralized training: a federation of one, in this process.

The same rounds, the same site code and the same averaging as in a federation; with one site the average of products is
that site's own product, brought into the balanced, aligned form. So the settings differ in who averages, and in nothing
else.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedpeft.algebra.feedback import averaged
from fedpeft.config.run import Run
from fedpeft.data.datalist import Site
from fedpeft.models.checkpoints.start import identity
from fedpeft.models.initial import build, fingerprint
from fedpeft.models.payload import decoded, download, trainable
from fedpeft.tasks.scores import class_means
from fedpeft.training.client.trainer import SiteTrainer
from fedpeft.training.server.run_folder import RunFolder
from fedpeft.training.server.selection import Selection


def train_alone(
    run: Run,
    site: Site,
    checkpoint: Path | None,
    out: Path,
    setting: str,
    report: Callable[[dict[str, Any]], None],
    device: str = "cpu",
) -> RunFolder:
    """Train one site (or the pooled sites) by itself for all rounds.

    Args:
        run: what to train.
        site: its cases.
        checkpoint: the backbone's; None draws every tensor.
        out: the run folder; optimiser moments are kept beside it while the run lasts.
        setting: "local" or "centralized", for run.json.
        report: called with the record of every round.
        device: torch device.
    """
    model = build(run, checkpoint)
    folder = RunFolder(out)
    folder.start(run, setting, identity(checkpoint), fingerprint(model))
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
    """All rounds; the model that enters a round is validated before it, the last one after the last round.

    As in a federation, where validations arrive with a round's results, the round that ends the run is trained.
    """
    run, site = trainer.run, trainer.site
    selection, last = Selection(folder, run.federation.patience), False
    exact = {key: tensor.detach().cpu().clone() for key, tensor in trainable(trainer.model).items()}
    tensors = decoded(run, exact, 0)
    for round_ in range(run.federation.rounds + 1):
        received = {key: tensors[key] for key in download(run, round_)}
        scores = class_means(trainer.validate(received, round_))
        selection.validated(round_, {site.name: scores}, tensors)
        if last or round_ == run.federation.rounds:
            return
        last = selection.exhausted
        update = trainer.train(received, round_)
        average, averaging = averaged(exact, tensors, [update.difference], [1.0], run.method.rule_of)
        exact |= average
        tensors = decoded(run, exact, round_ + 1)
        record = {
            "sites": {site.name: {run.task.of_class: scores, "loss": update.loss, "cases": update.cases}},
            "seconds": update.seconds,
            "averaging": averaging,
        }
        folder.record(round_, record, tensors)
        report({"round": round_} | record)

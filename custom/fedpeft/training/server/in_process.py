"""A federation in this process: sites train one after the other, bit for bit as they do through FLARE.

Local and centralised training are federations of one site: the average of products is then that site's own product in
balanced, aligned form. So the settings differ only in whose updates are averaged.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedpeft.config.run import Run
from fedpeft.data.datalist import Site
from fedpeft.models.checkpoints.start import identity
from fedpeft.models.initial import build, fingerprint
from fedpeft.models.payload import trainable
from fedpeft.tasks.scores import class_means
from fedpeft.training.client.trainer import SiteTrainer
from fedpeft.training.server.run_folder import FINISHED, RunFolder
from fedpeft.training.server.selection import scores_of
from fedpeft.training.server.server_round import Record, ServerRound, SiteUpdate, Tensors
from fedpeft.training.server.start import Start
from fedpeft.training.server.weighting import check_sites


def train_in_process(
    run: Run,
    sites: Sequence[Site],
    checkpoint: Path | None,
    out: Path,
    setting: str,
    report: Callable[[Record], None] = lambda record: None,
    device: str = "cpu",
    away: Collection[tuple[str, int]] = (),
    start: Start | None = None,
) -> RunFolder:
    """Train all rounds of a run and write its folder.

    Args:
        run: what to train.
        sites: the sites that take part; one site, or the pooled sites, for local and centralised training.
        checkpoint: file of the backbone's weights; None for random initial weights.
        out: the run folder; optimiser moments are kept beside it while the run lasts.
        setting: "local", "federated" or "centralized", for run.json.
        report: called with the record of every round.
        device: torch device.
        away: pairs (site name, round) in which a site is absent.
        start: tensors that the run starts from; None: those of the initial model.

    Raises:
        FileExistsError: ``out`` holds a run already.
        ValueError: a site's data do not fit the run, it has no weight, or a loss is not finite.
    """
    if len(sites) > 1:
        check_sites(run, [site.name for site in sites])
    models = [build(run, checkpoint) for _ in sites]
    folder, server = RunFolder(out), ServerRound(run, setting)
    folder.start(run, setting, identity(checkpoint), fingerprint(models[0]), start.sha256 if start else None)
    with _moments(out) as moments, _recorded(folder):
        state = server.begin(start.tensors if start else trainable(models[0]))
        trainers = [SiteTrainer(run, site, model, moments, device) for site, model in zip(sites, models, strict=True)]
        while not server.is_over(state):
            round_, received = state.rounds_done, server.download(state)
            there = [trainer for trainer in trainers if (trainer.site.name, round_) not in away]
            updates = {trainer.site.name: _update(trainer, received, round_) for trainer in there}
            before, (state, record) = state, server(state, updates)
            record |= {"seconds": sum(update.report["seconds"] for update in updates.values())}
            folder.keep_round(before, state, record)
            report({"round": round_} | record)
        round_, received = state.rounds_done, server.download(state)
        scores = scores_of(run, {trainer.site.name: _validation(trainer, received, round_) for trainer in trainers})
        folder.keep_validation(state, server.validated(state, scores).best, scores)
    return folder


def _update(trainer: SiteTrainer, received: Tensors, round_: int) -> SiteUpdate:
    """A site's answer in a round: it validates the received model, then trains."""
    scores = _validation(trainer, received, round_)
    update = trainer.train(received, round_)
    return SiteUpdate(update.tensors, update.report | scores)


def _validation(trainer: SiteTrainer, received: Tensors, round_: int) -> dict[str, Any]:
    return {trainer.run.task.of_class: class_means(trainer.validate(received, round_))}


@contextmanager
def _moments(out: Path) -> Iterator[Path]:
    """A new folder for the optimiser moments; one that a killed run left is removed first."""
    folder = out.parent / f"{out.name}.state"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _recorded(folder: RunFolder) -> Iterator[None]:
    """Record in run.json how the run ended."""
    try:
        yield
    except BaseException as fault:
        folder.finish(f"failed: {fault or type(fault).__name__}")
        raise
    folder.finish(FINISHED)

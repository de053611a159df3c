"""A federation in one process, without FLARE: what benchmarks train, and what a simulation is compared with."""

import shutil
from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn

from fedpeft.algebra.average import normalised
from fedpeft.algebra.codec import roundtrip
from fedpeft.algebra.feedback import averaged
from fedpeft.config.run import Run
from fedpeft.data.datalist import Site
from fedpeft.models.initial import build
from fedpeft.models.payload import decoded, download, trainable
from fedpeft.training.client.trainer import SiteTrainer


def federate(run: Run, sites: list[Site], checkpoint: Path | None, state: Path) -> nn.Module:
    """A federation's model after all rounds; ``state`` is made anew and removed, see ``federated``."""
    shutil.rmtree(state, ignore_errors=True)
    tensors, trainers = federated(run, sites, checkpoint, state)
    trainers[0].load(tensors, run.federation.rounds)
    shutil.rmtree(state, ignore_errors=True)
    return trainers[0].model


def federated(
    run: Run, sites: list[Site], checkpoint: Path | None, state: Path, away: Collection[tuple[str, int]] = ()
) -> tuple[dict[str, Tensor], list[SiteTrainer]]:
    """The same training, codec and average as through FLARE, bit for bit: sites in turn, and nothing else.

    Args:
        run: what to train.
        sites: who takes part.
        checkpoint: the weights to start from; None draws them.
        state: folder for the sites' optimiser moments.
        away: (site, round) that are left out.

    Returns:
        The tensors after the last round as the sites hold them, and the sites.
    """
    trainers = [SiteTrainer(run, site, build(run, checkpoint), state) for site in sites]
    exact = {key: tensor.detach().clone() for key, tensor in trainable(build(run, checkpoint)).items()}
    tensors = decoded(run, exact, 0)
    for round_ in range(run.federation.rounds):
        received = {key: tensors[key] for key in download(run, round_)}
        there = [trainer for trainer in trainers if (trainer.site.name, round_) not in away]
        updates = [trainer.train(received, round_) for trainer in there]
        differences = [roundtrip(update.difference, run.federation.codec) for update in updates]
        weights = normalised([update.cases for update in updates])
        exact |= averaged(exact, tensors, differences, weights, run.method.rule_of)[0]
        tensors = decoded(run, exact, round_ + 1)
    return tensors, trainers

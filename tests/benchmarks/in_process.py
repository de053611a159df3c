"""A federation in one process without FLARE, on which benchmarks choose step sizes."""

import shutil
from pathlib import Path

from torch import nn

from fedpeft.algebra.average import average_parcel, normalised
from fedpeft.algebra.codec import roundtrip
from fedpeft.data.datalist import Site
from fedpeft.model.initial import build
from fedpeft.model.parcel import download, trainable
from fedpeft.spec.run import Run
from fedpeft.train.site import SiteTrainer


def federate(run: Run, sites: list[Site], checkpoint: Path | None, state: Path) -> nn.Module:
    """A federation's model after all rounds: the same training, codec and average as through FLARE, bit for bit.

    Args:
        run: what to train.
        sites: who takes part.
        checkpoint: the weights to start from; None draws them.
        state: folder for the sites' optimiser moments, made anew.
    """
    shutil.rmtree(state, ignore_errors=True)
    trainers = [SiteTrainer(run, site, build(run, checkpoint), state) for site in sites]
    tensors = {key: tensor.detach().clone() for key, tensor in trainable(trainers[0].model).items()}
    tensors |= roundtrip({key: tensors[key] for key in download(run, 0)}, run.codec)
    for round_ in range(run.rounds):
        updates = [trainer.train(tensors, round_) for trainer in trainers]
        weights = normalised([update.cases for update in updates])
        # A round of a method that draws blocks trains some of the tensors alone.
        base = {key: tensors[key] for key in updates[0].difference}
        differences = [roundtrip(item.difference, run.codec) for item in updates]
        averaged, _ = average_parcel(base, differences, weights, run.method_row.rule_of)
        tensors |= roundtrip(averaged, run.codec)
    trainers[0].load(tensors, run.rounds)
    shutil.rmtree(state, ignore_errors=True)
    return trainers[0].model

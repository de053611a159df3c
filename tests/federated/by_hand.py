"""A federation without FLARE: what the simulator's weights are compared with, bit for bit."""

from fedpeft.algebra.average import average_parcel, normalised
from fedpeft.algebra.codec import roundtrip
from fedpeft.data.datalist import read_sites
from fedpeft.model.initial import build
from fedpeft.model.parcel import download, parcel, trainable
from fedpeft.train.checkpoints import own
from fedpeft.train.site import SiteTrainer


def by_hand(run, data, state, names):
    """The same federation without FLARE: sites in turn, the average, nothing else."""
    sites = [site for site in read_sites(data) if site.name in names]
    checkpoint = own(run)
    trainers = [SiteTrainer(run, site, build(run, checkpoint), state) for site in sites]
    tensors = {key: p.detach().clone() for key, p in trainable(build(run, checkpoint)).items()}
    tensors |= roundtrip({key: tensors[key] for key in download(run)}, run.codec)
    for round_ in range(run.rounds):
        received = {key: tensors[key] for key in download(run, round_)}
        updates = [trainer.train(received, round_) for trainer in trainers]
        differences = [roundtrip(update.difference, run.codec) for update in updates]
        weights = normalised([update.cases for update in updates])
        base = {key: tensors[key] for key in parcel(run, round_)}
        averaged, _ = average_parcel(base, differences, weights, run.method_row.rule_of)
        tensors |= roundtrip(averaged, run.codec)
    return tensors

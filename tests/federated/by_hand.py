"""A federation without FLARE: what the simulator's weights are compared with, bit for bit."""

from fedpeft.algebra.average import normalised
from fedpeft.algebra.codec import roundtrip
from fedpeft.algebra.feedback import averaged
from fedpeft.data.datalist import read_sites
from fedpeft.model.initial import build
from fedpeft.model.parcel import download, held, trainable
from fedpeft.train.checkpoints import own
from fedpeft.train.site import SiteTrainer


def by_hand(run, data, state, names, away=()):
    """The same federation without FLARE: sites in turn, the average, nothing else; ``away`` holds (site, round)."""
    sites = [site for site in read_sites(data) if site.name in names]
    checkpoint = own(run)
    trainers = [SiteTrainer(run, site, build(run, checkpoint), state) for site in sites]
    exact = {key: p.detach().clone() for key, p in trainable(build(run, checkpoint)).items()}
    tensors = held(run, exact, 0)
    for round_ in range(run.rounds):
        received = {key: tensors[key] for key in download(run, round_)}
        there = [trainer for trainer in trainers if (trainer.site.name, round_) not in away]
        updates = [trainer.train(received, round_) for trainer in there]
        differences = [roundtrip(update.difference, run.codec) for update in updates]
        weights = normalised([update.cases for update in updates])
        exact |= averaged(exact, tensors, differences, weights, run.method_row.rule_of)[0]
        tensors = held(run, exact, round_ + 1)
    return tensors

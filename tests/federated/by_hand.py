"""A federation without FLARE: what the simulator's weights are compared with, bit for bit."""

from fedpeft.data.datalist import read_sites
from fedpeft.models.checkpoints.start import own
from fedpeft.training.server.in_process import train_in_process


def by_hand(run, data, folder, names, away=()):
    """The tensors after the last round of the named sites' federation; ``away`` holds (site, round)."""
    sites = [site for site in read_sites(data) if site.name in names]
    return train_in_process(run, sites, own(run), folder / "run", "federated", away=away).tensors()

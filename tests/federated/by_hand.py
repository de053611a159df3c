"""A federation without FLARE: what the simulator's weights are compared with, bit for bit."""

from in_process import federated

from fedpeft.data.datalist import read_sites
from fedpeft.models.checkpoints.start import own


def by_hand(run, data, state, names, away=()):
    """The tensors after the last round of the named sites' federation; ``away`` holds (site, round)."""
    sites = [site for site in read_sites(data) if site.name in names]
    return federated(run, sites, own(run), state, away)[0]

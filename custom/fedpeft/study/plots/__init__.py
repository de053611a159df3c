"""Plots of a comparison. They need matplotlib, which servers and training sites need not install."""

from importlib.util import find_spec

NO_PLOTS = "no plots: matplotlib is not installed; install it (pip install matplotlib) for the plots of later commands"


def can_plot() -> bool:
    """Whether matplotlib is installed; without it, no other module of this package can be imported."""
    return find_spec("matplotlib") is not None

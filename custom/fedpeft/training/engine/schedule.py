"""The learning rate over a run."""

from collections.abc import Callable
from math import cos, pi

from fedpeft.config.run import Run


def _cosine(progress: float, warmup: float) -> float:
    """Half a period of a cosine, from 1 to 0."""
    return 0.5 * (1 + cos(pi * (progress - warmup) / (1 - warmup)))


def _power7(progress: float, warmup: float) -> float:
    """(1 - t)^7, as in the FLAP-SAM paper."""
    return ((1 - progress) / (1 - warmup)) ** 7


# Name -> function (progress of the run, share of the warm-up) -> share of the peak: 1 after the warm-up, 0 at the end.
SCHEDULES: dict[str, Callable[[float, float], float]] = {"cosine": _cosine, "power7": _power7}


def learning_rate_at(run: Run, progress: float) -> float:
    """The learning rate at a point of the run: a linear warm-up, then the run's schedule down to zero.

    Args:
        run: gives the peak, the warm-up's share and the schedule.
        progress: (round + share of the round done) / rounds, 0 to 1. It does not depend on a site's number of steps, so
            every site and setting is at the same point of the schedule.
    """
    if progress < run.training.warmup:
        return run.training.learning_rate * progress / run.training.warmup
    return run.training.learning_rate * SCHEDULES[run.training.lr_schedule](progress, run.training.warmup)

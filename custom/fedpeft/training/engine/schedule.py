"""The learning rate over a run."""

from collections.abc import Callable
from math import cos, pi

from fedpeft.config.run import Run


def _cosine(progress: float, warmup: float) -> float:
    """Half a period of a cosine, from 1 to 0."""
    return 0.5 * (1 + cos(pi * (progress - warmup) / (1 - warmup)))


def _power7(progress: float, warmup: float) -> float:
    """(1 - t)^7, as in the code of FLAP-SAM and MA-SAM."""
    return ((1 - progress) / (1 - warmup)) ** 7


def _poly(progress: float, warmup: float) -> float:
    """(1 - t)^0.9, as in SAMed's code."""
    return ((1 - progress) / (1 - warmup)) ** 0.9


# Name -> function (progress of the run, share of the warm-up) -> share of the peak: 1 after the warm-up, 0 at the end.
SCHEDULES: dict[str, Callable[[float, float], float]] = {"cosine": _cosine, "power7": _power7, "poly": _poly}


def learning_rate_of(run: Run, round_: int, index: int, round_steps: int, epoch_steps: int) -> float:
    """The learning rate of a site's step: by the run's progress, or by the site's own count of steps.

    Args:
        run: gives the peak, the warm-up and the schedule. With ``warmup_steps`` or ``decay_epochs`` the site counts its
            steps over all rounds; a site with fewer steps in a round is then earlier in the schedule.
        round_: 0-based.
        index: 0-based step in the round.
        round_steps: the site's steps in a round.
        epoch_steps: the site's steps in a pass over its data.
    """
    training, rounds = run.training, run.federation.rounds
    if training.warmup_steps is None and training.decay_epochs is None:
        return learning_rate_at(run, (round_ + (index + 0.5) / round_steps) / rounds)
    total, warmup = rounds * round_steps, training.warmup_steps
    warmup = round(training.warmup * total) if warmup is None else warmup
    horizon = total - warmup if training.decay_epochs is None else training.decay_epochs * epoch_steps
    return _rate_by_steps(run, round_ * round_steps + index, warmup, max(horizon, 1))


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


def _rate_by_steps(run: Run, step: int, warmup: int, horizon: float) -> float:
    """The learning rate as FLAP-SAM's, MA-SAM's and SAMed's code has it.

    They set the rate after a step, for the next one: step k > 0 has the rate of k - 1, which counts from 1 in the
    warm-up. So steps 0 and 1 are alike, and step ``warmup`` + 1 still has the peak.

    Args:
        run: gives the peak and the schedule.
        step: 0-based, over all rounds of the site.
        warmup: steps of the warm-up.
        horizon: steps from its end to zero, above 0.
    """
    peak = run.training.learning_rate
    if step <= warmup and warmup:
        return peak * (max(step, 1) / warmup)
    done = max(step - 1 - warmup, 0) / horizon
    return peak * SCHEDULES[run.training.lr_schedule](min(done, 1.0), 0.0)

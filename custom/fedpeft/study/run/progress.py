"""The progress of a comparison, and an estimate of the time left."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import fmean

from fedpeft.study.plan.experiments import FEDERATED, INITIAL, Experiment, label

Group = tuple[str, ...]


@dataclass(frozen=True)
class State:
    """The progress of one experiment; times are in seconds of the clock.

    Attributes:
        started: time of its begin; None before that.
        rounds: number of its finished rounds.
        first: time of the end of its first round.
        at: time of the end of its last finished round.
        ended: whether it has finished or failed.
        seconds: its duration; None while it runs, or if it was not measured.
    """

    started: float | None = None
    rounds: int = 0
    first: float = 0.0
    at: float = 0.0
    ended: bool = False
    seconds: float | None = None

    @property
    def runs(self) -> bool:
        """Whether it has begun and not ended."""
        return self.started is not None and not self.ended


class Progress:
    """The states of all experiments of a comparison, and an estimate of the time left.

    A running experiment's duration is projected from its rounds, without repeating the start of the model or federation
    that the first round includes. An experiment without a finished round is expected to take the mean of the known
    durations of its method and setting, else of its setting, else of all.

    Args:
        experiments: the comparison's experiments.
        workers: number of experiments that run at the same time; federated ones run one after the other.
        report: called with this object and a line for people about the latest event.
        clock: returns seconds.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        workers: int,
        report: Callable[["Progress", str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._states = dict.fromkeys(experiments, State())
        self._workers, self._report, self._clock = workers, report, clock
        self._began = clock()

    def kept(self, experiments: Mapping[Experiment, float | None]) -> None:
        """Record the experiments that an earlier comparison finished, with their seconds if known."""
        for experiment, seconds in experiments.items():
            self._states[experiment] = State(ended=True, seconds=seconds)
        self._report(
            self,
            f"{len(experiments)} experiments have finished before"
            if experiments
            else "no experiment has finished before",
        )

    def advanced(self, experiment: Experiment, rounds: int) -> None:
        """Record that an experiment has begun (0 rounds) or has finished some of its rounds."""
        state, now = self._states[experiment], self._clock()
        if state.ended:
            # A worker's last event may arrive after its result.
            return
        if rounds == 0:
            self._set(experiment, State(started=now), "begins")
            return
        state = replace(state, first=state.first if state.rounds else now, rounds=rounds, at=now)
        self._set(experiment, state, f"round {rounds} of {experiment.run.federation.rounds}")

    def finished(self, experiment: Experiment, seconds: float) -> None:
        """Record that an experiment is trained and tested."""
        self._set(
            experiment, replace(self._states[experiment], ended=True, seconds=seconds), f"finished in {seconds:.0f} s"
        )

    def failed(self, experiment: Experiment, error: BaseException) -> None:
        """Record that an experiment has failed."""
        self._set(experiment, replace(self._states[experiment], ended=True), f"failed: {error}")

    def left(self) -> float | None:
        """Estimate the seconds left; None until a duration is known."""
        means, now = self._means(), self._clock()
        alone: list[float] = []
        federated: list[float] = []
        for experiment, state in self._states.items():
            if state.ended:
                continue
            seconds = self._left_of(experiment, means, now)
            if seconds is None:
                return None
            (federated if experiment.setting == FEDERATED else alone).append(seconds)
        return max(sum(alone) / min(self._workers, len(alone) or 1), *alone, 0.0) + sum(federated)

    def line(self) -> str:
        """The progress line: experiments done, time gone and estimated time left."""
        done = sum(state.ended for state in self._states.values())
        left = self.left()
        rest = "time left not known yet" if left is None else f"about {_hours(left)} left"
        return f"{done}/{len(self._states)} experiments, {_hours(self._clock() - self._began)} gone, {rest}"

    def running(self) -> str:
        """The names of the running experiments with their rounds."""
        return "; ".join(
            f"{experiment.name} {state.rounds}/{experiment.run.federation.rounds}"
            if experiment.setting != INITIAL
            else experiment.name
            for experiment, state in self._states.items()
            if state.runs
        )

    def _set(self, experiment: Experiment, state: State, text: str) -> None:
        self._states[experiment] = state
        self._report(self, f"{experiment.name}: {text}")

    def _means(self) -> dict[Group, float]:
        """The mean duration of every group with an experiment of known duration."""
        known: dict[Group, list[float]] = {}
        for experiment, state in self._states.items():
            seconds = _whole(experiment, state)
            # The duration of an initial model's test says nothing about trainings.
            groups = _groups(experiment)[: 2 if experiment.setting == INITIAL else 3]
            if seconds is not None:
                for group in groups:
                    known.setdefault(group, []).append(seconds)
        return {group: fmean(values) for group, values in known.items()}

    def _left_of(self, experiment: Experiment, means: dict[Group, float], now: float) -> float | None:
        state = self._states[experiment]
        whole = _whole(experiment, state)
        if whole is None:
            whole = next((means[group] for group in _groups(experiment) if group in means), None)
        if whole is None or state.started is None:
            return whole
        return max(0.0, whole - (now - state.started))


def _whole(experiment: Experiment, state: State) -> float | None:
    """An experiment's whole duration, measured or projected from its rounds; None if neither is possible."""
    if state.started is None or state.ended or not state.rounds:
        return state.seconds
    begin = state.first - state.started
    pace = (state.at - state.first) / (state.rounds - 1) if state.rounds > 1 else begin
    return begin + pace * (experiment.run.federation.rounds - 1)


def _groups(experiment: Experiment) -> tuple[Group, ...]:
    """The groups to which an experiment belongs, from the most similar experiments to all."""
    return (label(experiment.run), experiment.setting), (experiment.setting,), ()


def _hours(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

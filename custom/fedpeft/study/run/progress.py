"""How far a comparison is, and about how much time is left."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import fmean

from fedpeft.study.plan.experiments import FEDERATED, INITIAL, Experiment, label

Group = tuple[str, ...]


@dataclass(frozen=True)
class State:
    """How far an experiment is.

    Attributes:
        started: when it began, in seconds of the clock; None before that.
        rounds: rounds that it has done.
        first: when its first round ended.
        at: when its last round so far ended.
        ended: whether it has finished or failed.
        seconds: how long it took; None while it runs, or where it was not measured.
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
    """The states of all experiments of a comparison, and an estimate of the time that is left.

    A running experiment's time is projected from its rounds. The first round, which also starts a model or a whole
    federation, counts once. An experiment without a finished round is expected to take the mean of the known times of
    its method and setting, or else of its setting, or else of all.

    Args:
        experiments: of the comparison.
        workers: how many experiments run at the same time; federated ones run one after the other.
        report: called with this object and a line for people that says what has just happened.
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
        """Take note of experiments that finished in an earlier comparison, and of their seconds where known."""
        for experiment, seconds in experiments.items():
            self._states[experiment] = State(ended=True, seconds=seconds)
        self._report(
            self,
            f"{len(experiments)} experiments have finished before"
            if experiments
            else "no experiment has finished before",
        )

    def advanced(self, experiment: Experiment, rounds: int) -> None:
        """Take note that an experiment has begun (0 rounds), or has done some of its rounds."""
        state, now = self._states[experiment], self._clock()
        if state.ended:
            # The last news of a worker may come after its result.
            return
        if rounds == 0:
            self._set(experiment, State(started=now), "begins")
            return
        state = replace(state, first=state.first if state.rounds else now, rounds=rounds, at=now)
        self._set(experiment, state, f"round {rounds} of {experiment.run.federation.rounds}")

    def finished(self, experiment: Experiment, seconds: float) -> None:
        """Take note that an experiment is trained and tested."""
        self._set(
            experiment, replace(self._states[experiment], ended=True, seconds=seconds), f"finished in {seconds:.0f} s"
        )

    def failed(self, experiment: Experiment, error: BaseException) -> None:
        """Take note that an experiment has failed."""
        self._set(experiment, replace(self._states[experiment], ended=True), f"failed: {error}")

    def left(self) -> float | None:
        """Estimate the seconds that are left; None as long as nothing is measured."""
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
        """Say how many experiments are done, the time gone and about the time left."""
        done = sum(state.ended for state in self._states.values())
        left = self.left()
        rest = "time left not known yet" if left is None else f"about {_hours(left)} left"
        return f"{done}/{len(self._states)} experiments, {_hours(self._clock() - self._began)} gone, {rest}"

    def running(self) -> str:
        """Name the running experiments and their rounds."""
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
        """The mean time of every group in which the time of an experiment is known."""
        known: dict[Group, list[float]] = {}
        for experiment, state in self._states.items():
            seconds = _whole(experiment, state)
            # How long an initial model's test takes says nothing of trainings.
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
    """An experiment's time from begin to end: measured, or projected from its rounds; None if neither is known."""
    if state.started is None or state.ended or not state.rounds:
        return state.seconds
    begin = state.first - state.started
    pace = (state.at - state.first) / (state.rounds - 1) if state.rounds > 1 else begin
    return begin + pace * (experiment.run.federation.rounds - 1)


def _groups(experiment: Experiment) -> tuple[Group, ...]:
    """The groups that an experiment belongs to, from the most alike to the whole comparison."""
    return (label(experiment.run), experiment.setting), (experiment.setting,), ()


def _hours(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

"""How far a comparison is, and about how long it will still take."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import fmean

from fedpeft.study.cells import FEDERATED, INITIAL, Cell, label

Group = tuple[str, ...]


@dataclass(frozen=True)
class State:
    """Where a cell is.

    Attributes:
        started: when it began, in seconds of the clock; None before that.
        rounds: that it has done.
        first: when it had done the first of them.
        at: when it had done the last of them.
        ended: whether it is over, finished or failed.
        seconds: that it took, as measured; None while it runs, or where nobody measured.
    """

    started: float | None = None
    rounds: int = 0
    first: float = 0.0
    at: float = 0.0
    ended: bool = False
    seconds: float | None = None

    @property
    def runs(self) -> bool:
        """Whether it is under way."""
        return self.started is not None and not self.ended


class Progress:
    """The states of all cells, told to whoever shows them.

    A running cell's whole time is projected from its rounds; its first one, which starts a model or a whole federation,
    counts once. A cell that has no round yet, or has not begun, is expected to take the mean of the known times of its
    method and setting, or else of its setting, or else of all.

    Args:
        cells: of the comparison.
        workers: how many cells run at the same time; federated ones run one after the other.
        report: called with this object and what has just happened, a line for people.
        clock: seconds.
    """

    def __init__(
        self, cells: Sequence[Cell], workers: int, report: Callable[["Progress", str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._states = dict.fromkeys(cells, State())
        self._workers, self._report, self._clock = workers, report, clock
        self._began = clock()

    def kept(self, cells: Mapping[Cell, float | None]) -> None:
        """Cells have finished in an earlier comparison, in so many seconds if that is known."""
        for cell, seconds in cells.items():
            self._states[cell] = State(ended=True, seconds=seconds)
        self._report(self, f"{len(cells)} cells have finished before" if cells else "no cell has finished before")

    def advanced(self, cell: Cell, rounds: int) -> None:
        """A cell has begun (0 rounds), or has done some of its rounds."""
        state, now = self._states[cell], self._clock()
        if state.ended:
            # The last news of a worker may come after its result.
            return
        if rounds == 0:
            self._set(cell, State(started=now), "begins")
            return
        state = replace(state, first=state.first if state.rounds else now, rounds=rounds, at=now)
        self._set(cell, state, f"round {rounds} of {cell.run.rounds}")

    def finished(self, cell: Cell, seconds: float) -> None:
        """A cell is trained and tested."""
        self._set(cell, replace(self._states[cell], ended=True, seconds=seconds), f"finished in {seconds:.0f} s")

    def failed(self, cell: Cell, error: BaseException) -> None:
        """A cell has failed."""
        self._set(cell, replace(self._states[cell], ended=True), f"failed: {error}")

    def left(self) -> float | None:
        """About how many seconds are left; None as long as nothing is measured."""
        means, now = self._means(), self._clock()
        open_ = {cell: self._left_of(cell, means, now) for cell, state in self._states.items() if not state.ended}
        if None in open_.values():
            return None
        alone = [seconds for cell, seconds in open_.items() if cell.setting != FEDERATED]
        federated = [seconds for cell, seconds in open_.items() if cell.setting == FEDERATED]
        return max(sum(alone) / min(self._workers, len(alone) or 1), *alone, 0.0) + sum(federated)

    def line(self) -> str:
        """How many cells are done, the time gone and about the time left."""
        done = sum(state.ended for state in self._states.values())
        left = self.left()
        rest = "time left not known yet" if left is None else f"about {_hours(left)} left"
        return f"{done}/{len(self._states)} cells, {_hours(self._clock() - self._began)} gone, {rest}"

    def running(self) -> str:
        """What runs now, and its round."""
        return "; ".join(
            f"{cell.name} {state.rounds}/{cell.run.rounds}" if cell.setting != INITIAL else cell.name
            for cell, state in self._states.items() if state.runs
        )

    def _set(self, cell: Cell, state: State, text: str) -> None:
        self._states[cell] = state
        self._report(self, f"{cell.name}: {text}")

    def _means(self) -> dict[Group, float]:
        """The mean time of every group of cells in which one is known."""
        known: dict[Group, list[float]] = {}
        for cell, state in self._states.items():
            seconds = _whole(cell, state)
            # How long an initial model's test takes says nothing of trainings.
            groups = _groups(cell)[: 2 if cell.setting == INITIAL else 3]
            for group in groups if seconds is not None else ():
                known.setdefault(group, []).append(seconds)
        return {group: fmean(values) for group, values in known.items()}

    def _left_of(self, cell: Cell, means: dict[Group, float], now: float) -> float | None:
        state = self._states[cell]
        whole = _whole(cell, state)
        if whole is None:
            whole = next((means[group] for group in _groups(cell) if group in means), None)
        if whole is None or state.started is None:
            return whole
        return max(0.0, whole - (now - state.started))


def _whole(cell: Cell, state: State) -> float | None:
    """A cell's time from begin to end, as measured or as its rounds tell."""
    if not state.runs or not state.rounds:
        return state.seconds
    begin = state.first - state.started
    pace = (state.at - state.first) / (state.rounds - 1) if state.rounds > 1 else begin
    return begin + pace * (cell.run.rounds - 1)


def _groups(cell: Cell) -> tuple[Group, ...]:
    """From the nearest relatives of a cell to the whole comparison."""
    return (label(cell.run), cell.setting), (cell.setting,), ()


def _hours(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

"""How far a part of a benchmark is, a line at a time."""

import time


class Clock:
    """Counts what is done and says how long the rest will take.

    Args:
        what: the part's name.
        total: how much there is to do.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._started = what, total, 0, time.monotonic()

    def tick(self, name: str) -> None:
        """One more is done."""
        self._done += 1
        gone = (time.monotonic() - self._started) / 60
        left = gone / self._done * (self._total - self._done)
        print(f"{self._what} {self._done}/{self._total}: {name} | {gone:.1f} min, {left:.0f} left", flush=True)

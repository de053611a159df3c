"""Follow a run by its folder while another process writes it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedpeft.training.server.run_folder import DESCRIPTION, FINISHED, ROUNDS


class RunFollower:
    """Reads a run folder repeatedly and reports its new rounds.

    Args:
        path: the run folder, which need not exist yet.
        report: called once with each round's record in rounds.jsonl, in order.
    """

    def __init__(self, path: Path, report: Callable[[dict[str, Any]], None]) -> None:
        self._path, self._report, self._reported = path, report, 0

    def look(self) -> bool:
        """Report the rounds that are new since the last call; return whether run.json says "finished".

        A missing file, or an incomplete last line, is left to a later call.
        """
        # The status is read first, since a finished run has written all its rounds.
        finished = _status(self._path / DESCRIPTION) == FINISHED
        for line in _whole_lines(self._path / ROUNDS)[self._reported :]:
            self._report(json.loads(line))
            self._reported += 1
        return finished


def _status(file: Path) -> str | None:
    try:
        return json.loads(file.read_text()).get("status")
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _whole_lines(file: Path) -> list[str]:
    try:
        return file.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []

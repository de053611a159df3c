"""The state that lets a run go on in another job; the server keeps it after every round.

FLARE does not resume a job whose server was killed, and lets no lost site back into a running job. A run may therefore
consist of several jobs, one after the other. They share ``run-state/<run key>`` in the server's kit: ``jobs.json``,
written before a job starts; ``round-<n>``, a copy of the run folder after the last finished round; ``status.json``, the
last job's own status.
"""

import shutil
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from fedpeft.common.files import read_json, replace, write_json
from fedpeft.training.client.site_file import STALE_DAYS
from fedpeft.training.server.run_folder import RunFolder

FOLDER = "run-state"
JOBS, STATUS, AWAITED = "jobs.json", "status.json", "awaited"
# The run ends after so many jobs in a row without a finished round.
ATTEMPTS = 5


class RunState:
    """The shared folder of one run's jobs.

    Args:
        folder: ``<kit>/run-state/<run key>``; sites keep their optimiser moments under the same key.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run_key(self) -> str:
        """The run's name: 32 hexadecimal digits."""
        return self.folder.name

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The run's jobs in order: "job", "from_round", and "sites", the names of those connected at its start."""
        return read_json(self.folder / JOBS)

    @property
    def rounds_done(self) -> int:
        """Number of finished rounds that were kept."""
        kept = self._kept()
        return int(kept.name.removeprefix("round-")) if kept else 0

    @property
    def sites(self) -> set[str]:
        """The sites of the last finished round; without one, those connected when an earlier job started."""
        kept = self._kept()
        if kept:
            return set(RunFolder(kept).rounds()[-1]["sites"])
        return {site for entry in self.jobs[:-1] for site in entry["sites"]}

    @property
    def stuck(self) -> bool:
        """Whether the last ``ATTEMPTS`` jobs finished no round."""
        last = [entry["from_round"] for entry in self.jobs[-ATTEMPTS:]]
        return last == [self.rounds_done] * ATTEMPTS

    @property
    def continued_after(self) -> list[int]:
        """The number of finished rounds each time the run went on in another job."""
        return [entry["from_round"] for entry in self.jobs[1:]]

    def append(self, job: str) -> None:
        """Let the run go on in this job, from the last finished round; only this job may write from now on."""
        write_json(self.folder / JOBS, [*self.jobs, {"job": job, "from_round": self.rounds_done, "sites": []}])

    def starts(self, sites: set[str]) -> None:
        """Record the sites connected when the last job starts; no site is awaited any more."""
        *others, last = self.jobs
        write_json(self.folder / JOBS, [*others, last | {"sites": sorted(sites)}])
        (self.folder / AWAITED).unlink(missing_ok=True)

    def keep(self, job: str, run: RunFolder, rounds_done: int) -> None:
        """Replace the kept copy of the run folder after a finished round; an interruption leaves the former copy whole.

        Raises:
            RuntimeError: the run has gone on in another job meanwhile.
        """
        self.claim(job)
        target = self._round(rounds_done)
        draft = target.with_name(f".{target.name}")
        shutil.rmtree(draft, ignore_errors=True)
        for source in run.path.iterdir():
            replace(draft / source.name, partial(shutil.copyfile, source))
        draft.rename(target)
        for before in self.folder.glob("round-*"):
            if before != target:
                shutil.rmtree(before)

    def restore(self, path: Path) -> bool:
        """Copy the kept run folder to ``path``; return False if no round was finished yet."""
        kept = self._kept()
        if kept:
            shutil.copytree(kept, path)
        return kept is not None

    def claim(self, job: str) -> None:
        """Make sure that a job is the run's last one.

        Raises:
            RuntimeError: another job has taken over the run, so this one must not write any more.
        """
        last = self.jobs[-1]["job"]
        if last != job:
            raise RuntimeError(f"run {self.run_key} has gone on in job {last}; job {job} must not write it any more")

    def note(self, job: str, status: str) -> None:
        """Record a job's status, "running" or how it ended; ignore a job that another one has followed."""
        if self.jobs[-1]["job"] == job:
            write_json(self.folder / STATUS, {"job": job, "status": status})

    def status(self, job: str) -> str | None:
        """A job's last recorded status, or None."""
        if not (self.folder / STATUS).is_file():
            return None
        found = read_json(self.folder / STATUS)
        return found["status"] if found["job"] == job else None

    def await_site(self) -> None:
        """Record that a site waits to enter, so that the next job starts after the present round."""
        (self.folder / AWAITED).touch()

    @property
    def awaited(self) -> bool:
        """Whether a site waits to enter."""
        return (self.folder / AWAITED).exists()

    def remove(self) -> None:
        """Remove the folder of a run that has ended."""
        shutil.rmtree(self.folder)

    def _round(self, number: int) -> Path:
        return self.folder / f"round-{number:05d}"

    def _kept(self) -> Path | None:
        return max(self.folder.glob("round-*"), default=None)


class RunStates:
    """The shared folders of all runs of a server.

    Args:
        root: folder of the server's kit.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    def of(self, job: str) -> RunState | None:
        """The run that a job belongs to, or None."""
        for state in self._all():
            if any(entry["job"] == job for entry in state.jobs):
                return state
        return None

    def begin(self, job: str) -> RunState:
        """Begin a run whose first job this is."""
        state = RunState(self.folder / uuid.uuid4().hex)
        write_json(state.folder / JOBS, [{"job": job, "from_round": 0, "sites": []}])
        return state

    def forget_old(self, unless: set[str]) -> None:
        """Remove runs that were not touched for ``STALE_DAYS`` days.

        Args:
            unless: jobs whose runs are kept.
        """
        oldest = time.time() - STALE_DAYS * 86400
        for state in self._all():
            touched = max(file.stat().st_mtime for file in state.folder.rglob("*"))
            if touched < oldest and not unless & {entry["job"] for entry in state.jobs}:
                state.remove()

    def _all(self) -> list[RunState]:
        return [RunState(file.parent) for file in sorted(self.folder.glob(f"*/{JOBS}"))]

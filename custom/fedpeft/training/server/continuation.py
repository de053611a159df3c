"""What a run needs to go on in another job: kept by the server after every round, in one folder a run.

FLARE has no memory of a run: a server that was killed does not resume, and a site that was lost cannot come back into
a running job. So a run may consist of several jobs, one after the other. What they share is below
``run-state/<run key>`` in the server's kit: ``jobs.json``, written before a job starts; ``round-<n>``, a copy of the
run folder after the last finished round; ``status.json``, what the last job says of itself.
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
# Jobs that may end one after the other without a finished round before the run is given up.
ATTEMPTS = 5


class RunState:
    """One run's folder.

    Args:
        folder: ``<kit>/run-state/<run key>``; sites keep their optimiser moments under the same key.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run_key(self) -> str:
        """32 hexadecimal digits."""
        return self.folder.name

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The run's jobs in their order: "job", "from_round", and "sites", who was there when it started."""
        return read_json(self.folder / JOBS)

    @property
    def rounds_done(self) -> int:
        """Finished rounds that were kept."""
        kept = self._kept()
        return int(kept.name.removeprefix("round-")) if kept else 0

    @property
    def sites(self) -> set[str]:
        """Who took part in the last finished round, or else was there when the last job before started."""
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
        """Rounds that were done each time the run went on in another job."""
        return [entry["from_round"] for entry in self.jobs[1:]]

    def append(self, job: str) -> None:
        """The run goes on in this job, from the last finished round; no other may write from now on."""
        write_json(self.folder / JOBS, [*self.jobs, {"job": job, "from_round": self.rounds_done, "sites": []}])

    def starts(self, sites: set[str]) -> None:
        """Note who is there when the last job starts; nobody is awaited any more."""
        *others, last = self.jobs
        write_json(self.folder / JOBS, [*others, last | {"sites": sorted(sites)}])
        (self.folder / AWAITED).unlink(missing_ok=True)

    def keep(self, job: str, run: RunFolder, rounds_done: int) -> None:
        """Keep a copy of the run folder after a finished round: all of it, or that of the round before.

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
        """Write the run folder as it was kept; False where no round was finished yet."""
        kept = self._kept()
        if kept:
            shutil.copytree(kept, path)
        return kept is not None

    def claim(self, job: str) -> None:
        """Make sure that a job is the run's last one.

        Raises:
            RuntimeError: it is not; what another job has taken over it must not write.
        """
        last = self.jobs[-1]["job"]
        if last != job:
            raise RuntimeError(f"run {self.run_key} has gone on in job {last}; job {job} must not write it any more")

    def note(self, job: str, status: str) -> None:
        """What a job says of its end, or "running"; one that has been taken over is not heard."""
        if self.jobs[-1]["job"] == job:
            write_json(self.folder / STATUS, {"job": job, "status": status})

    def status(self, job: str) -> str | None:
        """What a job said last, or None when it said nothing."""
        if not (self.folder / STATUS).is_file():
            return None
        found = read_json(self.folder / STATUS)
        return found["status"] if found["job"] == job else None

    def await_site(self) -> None:
        """A site is there that cannot enter the running job: the next one should start after this round."""
        (self.folder / AWAITED).touch()

    @property
    def awaited(self) -> bool:
        """Whether a site waits to enter."""
        return (self.folder / AWAITED).exists()

    def remove(self) -> None:
        """The run has come to its end."""
        shutil.rmtree(self.folder)

    def _round(self, number: int) -> Path:
        return self.folder / f"round-{number:05d}"

    def _kept(self) -> Path | None:
        return max(self.folder.glob("round-*"), default=None)


class RunStates:
    """All runs of a server.

    Args:
        root: the server's kit.
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
        """A new run, whose first job this is."""
        state = RunState(self.folder / uuid.uuid4().hex)
        write_json(state.folder / JOBS, [{"job": job, "from_round": 0, "sites": []}])
        return state

    def forget_old(self, unless: set[str]) -> None:
        """Remove runs that nobody touched for ``STALE_DAYS``.

        Args:
            unless: jobs whose runs stay.
        """
        oldest = time.time() - STALE_DAYS * 86400
        for state in self._all():
            touched = max(file.stat().st_mtime for file in state.folder.rglob("*"))
            if touched < oldest and not unless & {entry["job"] for entry in state.jobs}:
                state.remove()

    def _all(self) -> list[RunState]:
        return [RunState(file.parent) for file in sorted(self.folder.glob(f"*/{JOBS}"))]

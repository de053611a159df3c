"""What every preparation needs: progress in bytes, a check of the disk's free space, and the result."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpeft.data.datalist import Site
from fedpeft.data.found import FoundCase

SPLIT_FILE = "split.csv"
# (what is being done, bytes done, bytes in total).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
        sites: the sites, read from the written folder.
        notes: what a person should know about them, one sentence each.
    """

    sites: list[Site]
    notes: list[str]


class Meter:
    """Counts bytes done and in total, and reports them."""

    def __init__(self, progress: Progress, files: Iterable[Path]) -> None:
        """Start at zero.

        Args:
            progress: called with every report.
            files: all files that will be read or copied, each as often as that happens.
        """
        self.progress, self.done, self.total = progress, 0, bytes_of(files)

    def at(self, what: str, *files: Path) -> None:
        """Report what is being done now, and with which files."""
        self.progress(what, self.done, self.total)
        self.done += bytes_of(files)

    def end(self) -> None:
        """Report that all is done."""
        self.progress("done", self.total, self.total)


def no_progress(what: str, done: int, total: int) -> None:
    """Show nothing."""


def bytes_of(files: Iterable[Path]) -> int:
    """Total size of the files that exist, in bytes."""
    return sum(file.stat().st_size for file in files if file.is_file())


def no_space(files: Iterable[Path], out: Path) -> list[str]:
    """A fault if the disk of ``out`` has no space for copies of the files."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    need, free = bytes_of(files), shutil.disk_usage(there).free
    gigabytes = f"{need / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free"
    return [f"{out}: {gigabytes}; free some space or give another --out"] if need > free else []


def empty_training(cases: Sequence[FoundCase]) -> list[str]:
    """Faults of sites without a training case."""
    trained = {case.site for case in cases if case.split == "training"}
    without = sorted({case.site for case in cases} - trained)
    return [f"{site}: no training case, expected at least one" for site in without]

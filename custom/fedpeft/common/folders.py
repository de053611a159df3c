"""Folders that are there completely or not at all."""

import glob
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def refuse_existing(out: str | Path) -> None:
    """Refuse to write over anything.

    Raises:
        FileExistsError: ``out`` is a file or a folder that is not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: exists and is not empty; remove it or give another --out")


@contextmanager
def building(out: str | Path) -> Iterator[Path]:
    """A temporary sibling of ``out`` to write into; it becomes ``out`` when the block ends, and goes if it fails.

    A killed process cannot tidy up; what it left behind goes when ``out`` is built again on the same machine.

    Args:
        out: the folder to make; its parents are made too.

    Yields:
        The temporary folder, empty.

    Raises:
        FileExistsError: ``out`` is a file or holds anything.
    """
    refuse_existing(out)
    out = Path(os.path.abspath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{out.name}.{socket.gethostname()}."
    for old in out.parent.glob(glob.escape(stem) + "*"):
        if not _runs(old.name.removeprefix(stem)):
            shutil.rmtree(old, ignore_errors=True)
    draft = out.with_name(f"{stem}{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        # An empty folder is replaced by the rename itself.
        os.rename(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _runs(pid: str) -> bool:
    """Whether there is such a process; what is no number is not ours to judge."""
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

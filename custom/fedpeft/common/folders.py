"""Folders that are complete or absent: write beside the target, then rename."""

import glob
import os
import shutil
import socket
import tempfile
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


def parent_of(path: Path) -> Path:
    """The folder itself, or the next one above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def unwritable(folder: Path, option: str) -> str:
    """Why no file can be written to a folder, which need not exist, and what to do; "" if one can.

    Args:
        folder: the folder.
        option: the option that names it, such as "--out".
    """
    parent = parent_of(folder)
    try:
        # It has no name, so nothing is left behind.
        with tempfile.TemporaryFile(dir=parent):
            return ""
    except OSError as error:
        where = f"{folder}: cannot be written ({error.strerror} in {parent})"
        return f"{where}; give another {option}, or let this account write there"


@contextmanager
def building(out: str | Path) -> Iterator[Path]:
    """A temporary sibling of ``out`` to write into; it becomes ``out`` when the block ends and is deleted if it fails.

    A killed process cannot clean up; the next build of ``out`` on the same machine deletes what it left.

    Args:
        out: the folder to make; its parents are made too.

    Yields:
        The temporary folder, empty.

    Raises:
        FileExistsError: ``out`` is a file or a folder that is not empty.
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
    """Whether a process of that number exists; True for any other text, whose folder is not ours to delete."""
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

"""Folders that are there completely or not at all."""

import os
import shutil
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
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        # An empty folder is replaced by the rename itself.
        os.rename(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)

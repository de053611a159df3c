"""Real small disks, where this account may mount them."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str):
    """A file system of ``size`` ("64k") in memory at ``folder``; the test is skipped where it cannot be mounted."""
    folder.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def made_read_only(folder: Path):
    """A small disk that cannot be written meanwhile."""
    remount(folder, "ro")
    try:
        yield
    finally:
        remount(folder, "rw")


def remount(folder: Path, how: str) -> None:
    """Change a small disk: "size=8m"."""
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)

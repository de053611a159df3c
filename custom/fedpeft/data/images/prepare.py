"""Prepare images: decode every file completely once, then copy it unchanged."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from fedpeft.data.datalist import Case
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.images.images import read_image

FOLDER = "images"


def refuse_others(found: Found) -> None:
    """Refuse volumes.

    Raises:
        ValueError: a case has a label file.
    """
    if any(case.label is not None for case in found.cases):
        raise ValueError(f"data set {found.dataset} is for classification, expected cases of one class each")


def files_of(case: FoundCase) -> list[Path]:
    """The image."""
    return [case.image]


def files_for_statistics(found: Found) -> list[Path]:
    """No files: images are normalised by the backbone's colours."""
    return []


def inspect(case: FoundCase, found: Found) -> list[str]:
    """Faults of class and file."""
    faults = []
    if case.target is None or not 0 <= case.target < len(found.labels):
        faults.append(f"{case.image}: label is {case.target}, expected 0 to {len(found.labels) - 1}")
    try:
        read_image(case.image)
    except (FileNotFoundError, ValueError) as error:
        faults.append(str(error))
    return faults


def copy(case: FoundCase, folder: Path, found: Found) -> tuple[Case, bool]:
    """Copy to ``<site>/images/<case>`` with the file's own suffix in lower case."""
    image = folder / FOLDER / f"{case.case}{case.image.suffix.lower()}"
    image.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(case.image, image)
    return Case(case.case, image, site=case.site, target=case.target, group=case.group or ""), False


def statistics(training: Sequence[Case], found: Found, before_read: Callable[[Case], None]) -> None:
    """Return None: images are normalised by the backbone's colours."""

"""Prepare images with masks: read both files completely, copy the image, and write the mask with indices of classes."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedpeft.data.datalist import Case
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.image_masks.masks import read_mask, write_mask
from fedpeft.data.image_masks.pairs import read_label
from fedpeft.data.images.images import read_image

IMAGES, MASKS = "images", "masks"


def refuse_others(found: Found) -> None:
    """Refuse cases without masks.

    Raises:
        ValueError: a case has none.
    """
    if any(case.label is None for case in found.cases):
        raise ValueError(f"data set {found.dataset} is for segmentation of images, expected cases with masks")


def files_of(case: FoundCase) -> list[Path]:
    """Image and mask."""
    return [case.image] if case.label is None else [case.image, case.label]


def files_for_statistics(found: Found) -> list[Path]:
    """No file: images are normalised by the backbone's colours."""
    return []


def inspect(case: FoundCase, found: Found) -> list[str]:
    """Faults of the files; both are read even if the first is faulty."""
    files = Case(case.case, case.image, case.label, case.site)
    return inspect_files(files, _indices(found))[2]


def inspect_files(case: Case, labels: Collection[int]) -> tuple[tuple[int, int] | None, np.ndarray | None, list[str]]:
    """Read a case completely.

    Args:
        case: its files.
        labels: values that the mask may have.

    Returns:
        Height and width, None if the image is faulty; the mask as stored, None if it is faulty or there is none; and
        the faults, one sentence each.
    """
    faults: list[str] = []
    size, mask = None, None
    try:
        shape = read_image(case.image).shape
        size = (shape[1], shape[2])
    except (FileNotFoundError, ValueError) as error:
        faults.append(str(error))
    try:
        if size is not None:
            mask = read_label(case, size, labels)
        elif case.label is not None:
            read_mask(case.label)
    except (FileNotFoundError, ValueError) as error:
        faults.append(str(error))
    return size, None if mask is None else mask.numpy(), faults


def copy(case: FoundCase, folder: Path, found: Found) -> tuple[Case, bool]:
    """Copy to ``<site>/images/<case>`` and write ``<site>/masks/<case>.png``."""
    image = folder / IMAGES / f"{case.case}{case.image.suffix.lower()}"
    mask = folder / MASKS / f"{case.case}.png"
    for file in (image, mask):
        file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(case.image, image)
    assert case.label is not None, "refuse_others lets no case without a mask pass"
    stored = read_mask(case.label)
    table = np.zeros(256, np.uint8)
    for value, index in _indices(found).items():
        table[value] = index
    write_mask(mask, table[stored])
    changed = bool((table[stored] != stored).any())
    return Case(case.case, image, mask, case.site, group=case.group or ""), changed


def statistics(training: Sequence[Case], found: Found, before_read: Callable[[Case], None]) -> None:
    """Return None: images are normalised by the backbone's colours."""


def _indices(found: Found) -> Mapping[int, int]:
    """Value in a source's mask -> index of its class; a source that maps no value has the indices themselves."""
    return found.merge or {index: index for index in range(len(found.labels))}

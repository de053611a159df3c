"""Prepare volumes: read image and label of a case completely, copy them, and compute the site's statistics."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedpeft.config.datasets import dataset
from fedpeft.data.datalist import Case
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.volumes.inspection import inspect_case
from fedpeft.data.volumes.nifti import read_nifti, write_mask, write_nifti
from fedpeft.data.volumes.normalise import Statistics
from fedpeft.data.volumes.volume import site_statistics


def refuse_others(found: Found) -> None:
    """Refuse cases without label files.

    Raises:
        ValueError: a case has none.
    """
    if any(case.label is None for case in found.cases):
        raise ValueError(f"data set {found.dataset} is for segmentation, expected cases with label files")


def files_of(case: FoundCase) -> list[Path]:
    """Image and label."""
    return [case.image] if case.label is None else [case.image, case.label]


def files_for_statistics(found: Found) -> list[Path]:
    """The training images, if the data set is normalised by its sites' statistics."""
    return [case.image for case in found.cases if case.split == "training"] if _per_site(found) else []


def inspect(case: FoundCase, found: Found) -> list[str]:
    """Faults of the files; labels may also have the values that will be merged."""
    labels = dict(enumerate(found.labels))
    allowed = {**labels, **{value: labels[index] for value, index in found.merge.items()}}
    files = Case(case.case, case.image, case.label, case.site, channel=case.channel)
    return inspect_case(files, allowed, dataset(found.dataset).preprocessing)[1]


def copy(case: FoundCase, folder: Path, found: Found) -> tuple[Case, bool]:
    """Copy to ``<site>/<case>/``; one channel of several is extracted, a label with values to merge is rewritten."""
    image, label = (folder / case.case / name for name in case.names)
    for file in (image, label):
        file.parent.mkdir(parents=True, exist_ok=True)
    if case.channel is None:
        shutil.copyfile(case.image, image)
    else:
        write_nifti(image, *read_nifti(case.image, case.channel))
    assert case.label is not None, "refuse_others lets no case without a label pass"
    changed = _copy_label(case.label, label, found.merge)
    return Case(case.case, image, label, case.site), changed


def statistics(training: Sequence[Case], found: Found, before_read: Callable[[Case], None]) -> Statistics | None:
    """Statistics of the training images; None if each volume is normalised by itself."""
    return site_statistics(training, dataset(found.dataset).preprocessing, before_read) if _per_site(found) else None


def _per_site(found: Found) -> bool:
    return dataset(found.dataset).preprocessing.scope == "site"


def _copy_label(source: Path, target: Path, merge: Mapping[int, int]) -> bool:
    if merge:
        values, grid = read_nifti(source)
        if np.isin(values, [value for value, index in merge.items() if value != index]).any():
            # Compared with the file's own values, so that 6 -> 5 and 5 -> 0 do not chain.
            label = values
            for value, index in merge.items():
                label = np.where(values == value, index, label)
            write_mask(target, label, grid)
            return True
    shutil.copyfile(source, target)
    return False

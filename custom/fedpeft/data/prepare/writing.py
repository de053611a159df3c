"""From cases wherever they lie to one folder a site, with datalist, statistics and the splits on record.

Every layout ends here: it says which file is which case's, of which site and in which split.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpeft.common.faults import FaultError
from fedpeft.common.folders import building, refuse_existing
from fedpeft.config.datasets import Dataset
from fedpeft.data.datalist import SPLITS, Case, read_sites, write_datalist
from fedpeft.data.prepare.staging import SPLIT_FILE, Meter, Prepared, Progress, empty_training, no_progress, no_space
from fedpeft.data.table import write_table
from fedpeft.data.volumes.inspection import inspect_case
from fedpeft.data.volumes.nifti import read_nifti, write_mask
from fedpeft.data.volumes.volume import site_statistics


@dataclass(frozen=True)
class Item:
    """One case of a source.

    Attributes:
        site: name of the site's folder to make.
        case: name of the case's folder in it.
        split: "training", "validation" or "test".
        image: NIfTI file, copied as it is.
        label: NIfTI file, copied as it is unless values are merged.
        names: of both files in the case's folder.
    """

    site: str
    case: str
    split: str
    image: Path
    label: Path
    names: tuple[str, str] = ("image.nii.gz", "label.nii.gz")


@dataclass(frozen=True)
class Source:
    """What a layout found.

    Attributes:
        root: folder that the cases come from, for messages.
        row: the data set.
        labels: index -> name.
        items: the cases.
        merge: label value in the files -> index that takes its place.
    """

    root: Path
    row: Dataset
    labels: Mapping[int, str]
    items: Sequence[Item]
    merge: Mapping[int, int] = field(default_factory=dict)


def write_sites(
    source: Source, out: str | Path, faults: Sequence[str] = (), progress: Progress = no_progress
) -> Prepared:
    """Read every file, then copy all cases, compute each site's statistics and write datalists and ``split.csv``.

    Args:
        source: the cases.
        out: folder to make; it is complete or not there at all.
        faults: what the layout found wrong already.
        progress: called before each file is read or copied, and at the end.

    Raises:
        FileExistsError: ``out`` exists and is not empty.
        FaultError: the layout or a file is faulty; all faults are listed, nothing is written.
    """
    refuse_existing(out)
    meter = Meter(progress, _gone_through(source))
    faults = [*faults, *empty_training([(item.site, item.split) for item in source.items])]
    allowed = {**source.labels, **{value: source.labels[index] for value, index in source.merge.items()}}
    for item in source.items:
        meter.at(f"reading {item.site}/{item.case}", item.image, item.label)
        case = Case(item.case, item.image, item.label, item.site)
        found = inspect_case(case, allowed, source.row.preprocessing)[1]
        faults += [f"{item.site}/{item.case}: {fault}" for fault in found]
    faults += no_space((file for item in source.items for file in (item.image, item.label)), Path(out))
    if faults:
        raise FaultError(f"{source.root} cannot be prepared", faults)
    merged = 0
    with building(out) as draft:
        for site in sorted({item.site for item in source.items}):
            merged += _write_site(draft / site, source, [item for item in source.items if item.site == site], meter)
        write_table(draft / SPLIT_FILE, {(item.site, item.case): item.split for item in source.items})
    meter.end()
    notes = [
        f"label values {', '.join(map(str, source.merge))} became {', '.join(map(str, set(source.merge.values())))} in "
        f"{merged} of {len(source.items)} label files"
    ]
    return Prepared(read_sites(out), notes if source.merge else [])


def _gone_through(source: Source) -> list[Path]:
    """A file once for reading, once for copying, a training image once for statistics."""
    files = [file for item in source.items for file in 2 * (item.image, item.label)]
    return files + [item.image for item in source.items if _per_site(source) and item.split == "training"]


def _per_site(source: Source) -> bool:
    return source.row.preprocessing.scope == "site"


def _write_site(folder: Path, source: Source, items: Sequence[Item], meter: Meter) -> int:
    """Write one site's folder; returns how many label files were changed by merging."""
    cases: dict[str, list[Case]] = {split: [] for split in SPLITS}
    merged = 0
    for item in sorted(items, key=lambda item: item.case):
        meter.at(f"copying {item.site}/{item.case}", item.image, item.label)
        image, label = (folder / item.case / name for name in item.names)
        for file in (image, label):
            file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.image, image)
        merged += _copy_label(item.label, label, source.merge)
        cases[item.split].append(Case(item.case, image, label, item.site))
    statistics = None
    if _per_site(source):
        statistics = site_statistics(
            cases["training"], source.row.preprocessing,
            lambda case: meter.at(f"statistics of {case.site}/{case.case}", case.image),
        )  # fmt: skip
    write_datalist(folder, source.row.name, source.labels, cases, statistics)
    return merged


def _copy_label(source: Path, target: Path, merge: Mapping[int, int]) -> bool:
    if merge:
        label, grid = read_nifti(source)
        if np.isin(label, list(merge)).any():
            for value, index in merge.items():
                label = np.where(label == value, index, label)
            write_mask(target, label, grid)
            return True
    shutil.copyfile(source, target)
    return False

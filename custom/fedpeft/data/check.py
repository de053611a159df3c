"""Is a folder of sites fit for training? Geometry, labels, intensities and counts, every fault named by its file.

What is looked at in pictures is in ``picture_check``.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from fedpeft.config.datasets import DATASETS, Preprocessing
from fedpeft.data.datalist import DATALIST, SPLITS, Case, Site, read_site
from fedpeft.data.entries import CLASSIFICATION
from fedpeft.data.images.check import PictureSummary, check_pictures, shared_by_splits
from fedpeft.data.volumes.inspection import inspect_case
from fedpeft.data.volumes.volume import Volume, site_statistics

# Relative difference between kept and recomputed statistics that rounding can explain.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class SiteSummary:
    """What a site has.

    Attributes:
        site: name.
        cases: number by split.
        shape: smallest and largest number of voxels along R, A and S.
        spacing: smallest and largest millimetres a voxel along R, A and S.
        orientation: axis codes of the files, sorted.
        share: mean share of a volume's voxels by label name, background left out.
    """

    site: str
    cases: dict[str, int]
    shape: tuple[tuple[int, ...], tuple[int, ...]]
    spacing: tuple[tuple[float, ...], tuple[float, ...]]
    orientation: tuple[str, ...]
    share: dict[str, float]


@dataclass(frozen=True)
class _Facts:
    """What is kept of a volume: a site's volumes together may be larger than memory."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    codes: str
    identity: bool
    share: dict[int, float] | None


@dataclass
class Report:
    """What ``check`` found.

    Attributes:
        sites: summaries of the sites of which anything could be read.
        faults: what must be repaired, one sentence each.
        warnings: what may be as it should.
    """

    sites: list[SiteSummary | PictureSummary] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def check(
    root: str | Path,
    preprocessing: Preprocessing | None = None,
    before_read: Callable[[Case], None] = lambda case: None,
) -> Report:
    """Read everything below a folder of sites.

    Args:
        root: folder of ``<site>/datalist.json``.
        preprocessing: None: that of the data set that the datalist names, or that of folders if it is no row's name.
        before_read: called with each case before its files are read.

    Raises:
        FileNotFoundError: there is no site below ``root``.
    """
    files = sorted(Path(root).glob(f"*/{DATALIST}"), key=lambda file: file.parent.name)
    if not files:
        raise FileNotFoundError(f"{root}: no <site>/{DATALIST} below it; make one with fedpeft data prepare or phantom")
    return check_files(files, preprocessing, before_read)


def check_files(
    files: Sequence[Path],
    preprocessing: Preprocessing | None = None,
    before_read: Callable[[Case], None] = lambda case: None,
) -> Report:
    """Read everything that datalists name; arguments as in ``check``."""
    report, seen, fingerprints, sites = Report(), {}, {}, []
    for file in files:
        try:
            sites.append(read_site(file))
        except ValueError as error:
            report.faults.append(str(error))
            continue
        if sites[-1].task == CLASSIFICATION:
            _check_pictures(sites[-1], report, fingerprints, before_read)
            continue
        row = DATASETS.get(sites[-1].dataset, DATASETS["folder"])
        _check_site(sites[-1], preprocessing or row.preprocessing, report, seen, before_read)
    for site in sites[1:]:
        first, where = sites[0], site.root / DATALIST
        if site.task != first.task:
            report.faults.append(f"{where}: is of {site.task}, {first.name} of {first.task}")
        if site.labels != first.labels:
            report.faults.append(f"{where}: labels are {site.labels}, {first.name} has {first.labels}")
    report.warnings += shared_by_splits(sites, fingerprints)
    return report


def _check_pictures(
    site: Site, report: Report, fingerprints: dict[Path, str], before_read: Callable[[Case], None]
) -> None:
    summary, faults, warnings, found = check_pictures(site, before_read)
    report.sites.append(summary)
    report.faults += faults
    report.warnings += warnings
    fingerprints |= found


def _check_site(
    site: Site,
    preprocessing: Preprocessing,
    report: Report,
    seen: dict[str, Path],
    before_read: Callable[[Case], None],
) -> None:
    volumes: dict[Case, _Facts] = {}
    for split in SPLITS:
        for case in site.splits[split]:
            before_read(case)
            volume, faults = inspect_case(case, site.labels, preprocessing)
            report.faults += faults
            if case.label is None and split != "test":
                report.faults.append(f"{case.image}: has no label in the datalist, expected one for {split}")
            if volume is not None:
                report.faults += _duplicate(case, seen)
                volumes[case] = _facts(volume, site.labels)
        if not site.splits[split]:
            lines = report.faults if split == "training" else report.warnings
            lines.append(f"{site.root / DATALIST}: {split} is empty")
    report.warnings += _warnings(site, volumes)
    complete = len(volumes) == sum(map(len, site.splits.values()))
    if complete and site.splits["training"]:
        _check_statistics(site, preprocessing, report)
    if volumes:
        report.sites.append(_summary(site, list(volumes.values())))


def _facts(volume: Volume, labels: Mapping[int, str]) -> _Facts:
    label, share = None if volume.label is None else volume.label[volume.content], None
    if label is not None:
        share = {index: (label == index).float().mean().item() for index in labels if index}
    return _Facts(
        shape=tuple(volume.image[volume.content].shape),
        spacing=volume.spacing,
        codes="".join(nibabel.aff2axcodes(volume.grid.affine)),
        identity=np.array_equal(volume.grid.affine, np.eye(4)),
        share=share,
    )


def _duplicate(case: Case, seen: dict[str, Path]) -> list[str]:
    """A case in training and in test under two names would make every result look better than it is."""
    fingerprint = hashlib.sha256(case.image.read_bytes()).hexdigest()
    first = seen.setdefault(fingerprint, case.image)
    return [] if first == case.image else [f"{case.image}: same file as {first}, expected different cases"]


def _warnings(site: Site, volumes: Mapping[Case, _Facts]) -> list[str]:
    """One line for each thing that is odd about some of a site's cases, naming the cases."""
    identity = [case.case for case, volume in volumes.items() if volume.identity]
    empty = [case.case for case, volume in volumes.items() if volume.share and not any(volume.share.values())]
    odd = (
        (identity, "affine is the identity, so spacing and orientation are probably unknown"),
        (empty, "no foreground, so the Dice of the case is 1 or 0"),
    )
    share = f"of {len(volumes)} cases"
    return [f"{site.name}: {len(cases)} {share}: {text}: {', '.join(cases)}" for cases, text in odd if cases]


def _check_statistics(site: Site, preprocessing: Preprocessing, report: Report) -> None:
    file, kept = site.root / DATALIST, site.statistics
    if preprocessing.scope == "volume":
        return
    if kept is None:
        report.warnings.append(f"{file}: no statistics, each volume will be normalised by itself; prepare again")
        return
    if kept.rule != preprocessing.rule:
        report.faults.append(f"{file}: statistics are {kept.rule!r}, expected {preprocessing.rule!r}; prepare again")
        return
    found = site_statistics(site.splits["training"], preprocessing)
    numbers = [(item.mean, item.std, item.low or 0.0, item.high or 0.0) for item in (kept, found)]
    if not np.allclose(*numbers, rtol=TOLERANCE) or kept.cases != found.cases:
        report.faults.append(
            f"{file}: statistics are {kept.mean:.6g} +- {kept.std:.6g} of {kept.cases} cases, the training cases have "
            f"{found.mean:.6g} +- {found.std:.6g} of {found.cases}; prepare again"
        )


def _summary(site: Site, volumes: Sequence[_Facts]) -> SiteSummary:
    shapes = np.array([volume.shape for volume in volumes])
    spacings = np.array([volume.spacing for volume in volumes]).round(4)
    shares = [volume.share for volume in volumes if volume.share is not None]
    return SiteSummary(
        site=site.name,
        cases={split: len(site.splits[split]) for split in SPLITS},
        shape=(tuple(shapes.min(axis=0).tolist()), tuple(shapes.max(axis=0).tolist())),
        spacing=(tuple(spacings.min(axis=0).tolist()), tuple(spacings.max(axis=0).tolist())),
        orientation=tuple(sorted({volume.codes for volume in volumes})),
        share={
            name: float(np.mean([share[index] for share in shares])) if shares else 0.0
            for index, name in site.labels.items()
            if index
        },
    )

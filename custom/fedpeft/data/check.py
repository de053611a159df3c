"""Check whether a folder of sites is ready for training: read every file, and name the file of every fault.

``volumes/check.py`` and ``images/check.py`` say what is checked in a volume and in an image.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedpeft.common.files import sha256_of
from fedpeft.config.datasets import DATASETS, Preprocessing
from fedpeft.data.datalist import DATALIST, SPLITS, Case, Site, datalists_below, read_site
from fedpeft.data.entries import DatalistError
from fedpeft.data.modalities import modality
from fedpeft.data.summary import Summary


@dataclass
class Report:
    """What ``check`` found.

    Attributes:
        sites: summaries of the sites with at least one readable case.
        faults: what must be repaired, one sentence each.
        warnings: what is unusual but may be right.
    """

    sites: list[Summary] = field(default_factory=list)
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
        preprocessing: None takes that of the datalist's data set, or that of "folder" if the data set has no entry.
        before_read: called with each case before its files are read.

    Raises:
        FileNotFoundError: there is no site below ``root``.
    """
    return check_files(datalists_below(root), preprocessing, before_read)


def check_files(
    files: Sequence[Path],
    preprocessing: Preprocessing | None = None,
    before_read: Callable[[Case], None] = lambda case: None,
) -> Report:
    """Read everything that datalists name; arguments as in ``check``."""
    report, sites = Report(), []
    fingerprints: dict[Path, str] = {}
    for file in files:
        try:
            sites.append(read_site(file))
        except DatalistError as error:
            report.faults += error.faults
            continue
        known = DATASETS.get(sites[-1].dataset, DATASETS["folder"]).preprocessing
        fingerprints |= _check_site(sites[-1], preprocessing or known, report, before_read)
    report.faults += _disagreements(sites)
    for task in dict.fromkeys(site.task for site in sites):
        own = [site for site in sites if site.task == task]
        faults, warnings = modality(task).check.repeated(own, fingerprints)
        report.faults += faults
        report.warnings += warnings
    return report


def _check_site(
    site: Site, preprocessing: Preprocessing, report: Report, before_read: Callable[[Case], None]
) -> dict[Path, str]:
    """Read a site's cases; returns the SHA-256 of every readable image."""
    kind = modality(site.task).check
    facts: dict[Case, Any] = {}
    for split in SPLITS:
        for case in site.splits[split]:
            before_read(case)
            known, faults = kind.inspect(case, site, preprocessing)
            report.faults += faults
            if not case.labelled and split != "test":
                report.faults.append(f"{case.image}: has no label in the datalist, expected one for {split}")
            if known is not None:
                facts[case] = known
        if not site.splits[split]:
            lines = report.faults if split == "training" else report.warnings
            lines.append(f"{site.root / DATALIST}: {split} is empty")
    faults, warnings = kind.findings(site, facts, preprocessing)
    report.faults += faults
    report.warnings += warnings
    if facts:
        report.sites.append(kind.summary(site, facts))
    return {case.image: sha256_of(case.image) for case in facts}


def _disagreements(sites: Sequence[Site]) -> list[str]:
    """Faults of sites whose task or labels differ from those of the first one."""
    faults = []
    for site in sites[1:]:
        first, where = sites[0], site.root / DATALIST
        if site.task != first.task:
            faults.append(f"{where}: is of {site.task}, {first.name} of {first.task}")
        if site.labels != first.labels:
            faults.append(f"{where}: labels are {site.labels}, {first.name} has {first.labels}")
    return faults

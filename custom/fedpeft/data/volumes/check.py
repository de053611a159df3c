"""Checks of volumes: geometry, labels, intensities, duplicates and stored statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from fedpeft.config.preprocessing import Preprocessing
from fedpeft.data.datalist import DATALIST, SPLITS, Case, Site
from fedpeft.data.summary import Summary, extremes, span
from fedpeft.data.volumes.inspection import inspect_case
from fedpeft.data.volumes.normalise import Statistics
from fedpeft.data.volumes.volume import Volume, site_statistics

# Relative difference between stored and recomputed statistics that rounding can explain.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class VolumeSummary(Summary):
    """What a site of volumes has.

    Attributes:
        spacing: smallest and largest millimetres per voxel along R, A and S.
        orientation: axis codes of the files, sorted.
        share: mean share of a volume's voxels by label name, without the background.
    """

    spacing: tuple[tuple[float, ...], tuple[float, ...]]
    orientation: tuple[str, ...]
    share: dict[str, float]

    def columns(self) -> list[tuple[str, str]]:
        """Sizes, spacing, axes and labels."""
        return [
            ("voxels R A S", span(*self.shape)),
            ("mm R A S", span(*self.spacing)),
            ("axes", " ".join(self.orientation)),
            ("labels, % of voxels", ", ".join(f"{name} {100 * share:.2f}" for name, share in self.share.items())),
        ]


@dataclass(frozen=True)
class Facts:
    """What is remembered of a volume, since a site's volumes together may be larger than memory."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    codes: str
    identity: bool
    share: dict[int, float] | None


def inspect(case: Case, site: Site, preprocessing: Preprocessing) -> tuple[Facts | None, list[str]]:
    """Facts about a volume, None if it is faulty, and its faults."""
    volume, faults = inspect_case(case, site.labels, preprocessing)
    return None if volume is None else _facts(volume, site.labels), faults


def findings(site: Site, facts: Mapping[Case, Facts], preprocessing: Preprocessing) -> tuple[list[str], list[str]]:
    """Faults of the statistics, and one warning for each kind of unusual case, naming the cases."""
    identity = [case.case for case, known in facts.items() if known.identity]
    empty = [case.case for case, known in facts.items() if known.share and not any(known.share.values())]
    odd = (
        (identity, "affine is the identity, so spacing and orientation are probably unknown"),
        (empty, "no foreground, so the Dice of the case is 1 or 0"),
    )
    share = f"of {len(facts)} cases"
    warnings = [f"{site.name}: {len(cases)} {share}: {text}: {', '.join(cases)}" for cases, text in odd if cases]
    complete = len(facts) == sum(map(len, site.splits.values()))
    if not complete or not site.splits["training"] or preprocessing.scope == "volume":
        return [], warnings
    file = site.root / DATALIST
    if site.statistics is None:
        return [], [
            *warnings, f"{file}: no statistics, each volume will be normalised by itself; prepare again"
        ]  # fmt: skip
    return _outdated(site, site.statistics, preprocessing, file), warnings


def summary(site: Site, facts: Mapping[Case, Facts]) -> VolumeSummary:
    """Summarise a site that has at least one case with facts."""
    volumes = list(facts.values())
    spacings = np.array([volume.spacing for volume in volumes]).round(4)
    shares = [volume.share for volume in volumes if volume.share is not None]
    return VolumeSummary(
        site=site.name,
        cases={split: len(site.splits[split]) for split in SPLITS},
        shape=extremes([volume.shape for volume in volumes]),
        spacing=(tuple(spacings.min(axis=0).tolist()), tuple(spacings.max(axis=0).tolist())),
        orientation=tuple(sorted({volume.codes for volume in volumes})),
        share={
            name: float(np.mean([share[index] for share in shares])) if shares else 0.0
            for index, name in site.labels.items()
            if index
        },
    )


def repeated(sites: Sequence[Site], fingerprints: Mapping[Path, str]) -> tuple[list[str], list[str]]:
    """Faults of files that are two cases: in training and in test, they make every result look better than it is."""
    first: dict[str, Path] = {}
    faults = []
    for case in (case for site in sites for split in SPLITS for case in site.splits[split]):
        if (fingerprint := fingerprints.get(case.image)) is not None:
            other = first.setdefault(fingerprint, case.image)
            if other != case.image:
                faults.append(f"{case.image}: same file as {other}, expected different cases")
    return faults, []


def _facts(volume: Volume, labels: Mapping[int, str]) -> Facts:
    label, share = None if volume.label is None else volume.label[volume.content], None
    if label is not None:
        share = {index: (label == index).float().mean().item() for index in labels if index}
    return Facts(
        shape=tuple(volume.image[volume.content].shape),
        spacing=volume.spacing,
        codes="".join(nibabel.aff2axcodes(volume.grid.affine)),
        identity=np.array_equal(volume.grid.affine, np.eye(4)),
        share=share,
    )


def _outdated(site: Site, stored: Statistics, preprocessing: Preprocessing, file: Path) -> list[str]:
    if stored.rule != preprocessing.rule:
        return [f"{file}: statistics are {stored.rule!r}, expected {preprocessing.rule!r}; prepare again"]
    found = site_statistics(site.splits["training"], preprocessing)
    old, new = ((item.mean, item.std, item.low or 0.0, item.high or 0.0) for item in (stored, found))
    if np.allclose(old, new, rtol=TOLERANCE) and stored.cases == found.cases:
        return []
    return [
        f"{file}: statistics are {stored.mean:.6g} +- {stored.std:.6g} of {stored.cases} cases, the training cases "
        f"have {found.mean:.6g} +- {found.std:.6g} of {found.cases}; prepare again"
    ]

"""Site folders: ``<root>/<site>/datalist.json`` in MONAI's decathlon form.

``{"name", "labels": {"0": "background", ...}, "training": [{"image", "label", "case"}], "validation": [...],
"test": [...], "statistics": {...}}`` with paths relative to the file and inside its folder.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fedpeft.data.normalise import Statistics

DATALIST = "datalist.json"
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class Case:
    """One volume.

    Attributes:
        case: name, unique within its site.
        image: NIfTI file.
        label: NIfTI file of the same grid, or None where there is no truth.
        site: name of the site it lies at; "" for a single volume.
        statistics: of that site's training cases; None if the volume is to be normalised by itself.
    """

    case: str
    image: Path
    label: Path | None = None
    site: str = ""
    statistics: Statistics | None = None


@dataclass(frozen=True)
class Site:
    """One site's cases.

    Attributes:
        name: of its folder, which is its client name too.
        root: that folder.
        labels: index -> name, from background, 0, on.
        splits: "training", "validation" and "test", each with its cases in the datalist's order.
        statistics: of the training cases; None if the datalist has none, and in a pool.
        dataset: the data set's name, as the datalist says.
    """

    name: str
    root: Path
    labels: dict[int, str]
    splits: dict[str, tuple[Case, ...]]
    statistics: Statistics | None = None
    dataset: str = ""

    @property
    def classes(self) -> int:
        """Number of foreground classes."""
        return len(self.labels) - 1

    def cases(self, split: str) -> tuple[Case, ...]:
        """The cases of a split.

        Raises:
            ValueError: the split is unknown or empty.
        """
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown, expected one of {', '.join(SPLITS)}")
        if not self.splits[split]:
            counts = ", ".join(f"{name} {len(self.splits[name])}" for name in SPLITS)
            raise ValueError(f"site {self.name}: no case for {split} in {self.root}; the datalist has {counts}")
        return self.splits[split]


def read_site(path: str | Path) -> Site:
    """A site from its folder or its ``datalist.json``. Image files are not opened.

    Raises:
        FileNotFoundError: there is no datalist.
        ValueError: the datalist is not as described above; the message names file and entry.
    """
    file = Path(path) / DATALIST if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not found, expected a datalist; see fedpeft data prepare --help")
    file = Path(os.path.abspath(file))  # not resolve(): a linked folder keeps the name of its link, the site
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not JSON ({error}); prepare the data again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}, expected an object; prepare the data again")
    name, statistics = file.parent.name, None
    if content.get("statistics") is not None:
        statistics = Statistics.from_dict(content["statistics"], str(file))
    splits = {split: _cases(file, content.get(split, []), split, statistics) for split in SPLITS}
    _refuse_duplicates(file, splits)
    labels = _labels(file, content.get("labels"))
    return Site(name, file.parent, labels, splits, statistics, str(content.get("name", "")))


def read_sites(root: str | Path) -> list[Site]:
    """Every site below a folder, sorted by name.

    Raises:
        FileNotFoundError: ``root`` holds no ``<site>/datalist.json``.
        ValueError: a datalist is faulty, or the sites' label tables differ.
    """
    files = sorted(Path(root).glob(f"*/{DATALIST}"), key=lambda file: file.parent.name)
    if not files:
        raise FileNotFoundError(f"{root}: no <site>/{DATALIST} below it; make one with fedpeft data prepare or phantom")
    sites = [read_site(file) for file in files]
    for site in sites[1:]:
        if site.labels != sites[0].labels:
            raise ValueError(
                f"label tables differ: site {sites[0].name} has {sites[0].labels}, site {site.name} has {site.labels}; "
                "prepare them with the same labels"
            )
    return sites


def pool(sites: Sequence[Site], name: str = "pool") -> Site:
    """All sites' cases as one site, for centralized training.

    Cases are called ``<site>/<case>`` and keep their own site's statistics: what a hospital's scanner does to the
    intensities does not go away by pooling.

    Raises:
        ValueError: there is no site, or the label tables differ.
    """
    if not sites or any(site.labels != sites[0].labels for site in sites):
        raise ValueError(f"cannot pool {[(site.name, site.labels) for site in sites]}: expected sites with one table")
    splits = {
        split: tuple(replace(case, case=f"{site.name}/{case.case}") for site in sites for case in site.splits[split])
        for split in SPLITS
    }
    return Site(name, sites[0].root.parent, sites[0].labels, splits, dataset=sites[0].dataset)


def write_datalist(
    folder: str | Path,
    name: str,
    labels: Mapping[int, str],
    splits: Mapping[str, Sequence[Case]],
    statistics: Statistics | None,
) -> Path:
    """Write ``<folder>/datalist.json``: a temporary file first, then renamed over the old one.

    Args:
        folder: the site's folder, which exists and holds the cases' files.
        name: of the data set.
        labels: index -> name.
        splits: cases by split; a missing split is written empty.
        statistics: of the training cases.

    Returns:
        The file.

    Raises:
        ValueError: a case's file lies outside the folder.
    """
    folder = Path(folder)
    content = {
        "name": name,
        "labels": {str(index): labels[index] for index in sorted(labels)},
        **{split: [_entry(folder, case) for case in splits.get(split, ())] for split in SPLITS},
        "statistics": statistics.to_dict() if statistics else None,
    }
    file, draft = folder / DATALIST, folder / f".{DATALIST}.{os.getpid()}"
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, file)
    return file


def _entry(folder: Path, case: Case) -> dict[str, str]:
    files = {"image": case.image, **({"label": case.label} if case.label else {})}
    for file in files.values():
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{file}: lies outside {folder}; copy it there first")
    relative = {key: file.resolve().relative_to(folder.resolve()).as_posix() for key, file in files.items()}
    return {**relative, "case": case.case}


def _cases(file: Path, entries: Any, split: str, statistics: Statistics | None) -> tuple[Case, ...]:
    if not isinstance(entries, list):
        raise ValueError(f"{file}: {split} is a {type(entries).__name__}, expected a list; prepare the data again")
    cases = []
    for number, entry in enumerate(entries):
        where = f"{file}: {split}[{number}]"
        if not isinstance(entry, dict) or not {"image", "case"} <= entry.keys():
            raise ValueError(f"{where} is {entry!r}, expected an object with image, label and case")
        label = _inside(file.parent, entry["label"], where) if entry.get("label") is not None else None
        image = _inside(file.parent, entry["image"], where)
        cases.append(Case(str(entry["case"]), image, label, file.parent.name, statistics))
    return tuple(cases)


def _inside(folder: Path, relative: Any, where: str) -> Path:
    # A datalist may come from elsewhere: it must not make a site read files outside its own folder.
    path = PurePosixPath(relative) if isinstance(relative, str) else None
    if path is None or path.is_absolute() or ".." in path.parts or "\\" in relative or not path.parts:
        raise ValueError(f"{where}: path is {relative!r}, expected one relative to the file without '..'")
    return folder / path


def _refuse_duplicates(file: Path, splits: Mapping[str, Sequence[Case]]) -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        for case in splits[split]:
            if case.case in seen:
                raise ValueError(f"{file}: case {case.case!r} is in {seen[case.case]} and in {split}, expected once")
            seen[case.case] = split


def _labels(file: Path, table: Any) -> dict[int, str]:
    try:
        labels = {int(index): str(name) for index, name in table.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{file}: labels are {table!r}, expected {{'0': 'background', '1': ...}}") from error
    if sorted(labels) != list(range(len(labels))) or not 2 <= len(labels) <= 256:
        raise ValueError(f"{file}: label indices are {sorted(labels)}, expected 2 to 256, from 0 without a gap")
    return dict(sorted(labels.items()))

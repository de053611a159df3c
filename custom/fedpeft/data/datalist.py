"""Site folders: ``<root>/<site>/datalist.json`` in MONAI's decathlon form.

A datalist is ``{"name", "labels": {"0": "background", ...}, "training": [{"image", "label", "case"}], "validation":
[...], "test": [...], "statistics": {...}}`` with paths relative to the file and inside its folder. A datalist of images
has ``"task": "classification"``, labels without a background, and entries ``{"image", "label": <index>, "case",
"group"}``; the group, a lesion or a patient, may be missing. Images with masks have ``"task": "image_segmentation"``,
and labels and entries as volumes have, with a group.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedpeft.config.tasks import task
from fedpeft.data.entries import SEGMENTATION, DatalistError, ImageEntry, VolumeEntry, read_content
from fedpeft.data.volumes.normalise import Statistics

DATALIST = "datalist.json"
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class Case:
    """One volume, or one image with a class or a mask.

    Attributes:
        case: name, unique within its site.
        image: NIfTI, or JPEG or PNG file.
        label: NIfTI file on the same grid, or PNG file of the same size; None for an image of a class and where the
            truth is unknown.
        site: name of the site that has the case; "" for a single volume.
        statistics: of that site's training cases; None if the volume is to be normalised by itself.
        target: index of an image's class; None for a volume and where the truth is unknown.
        group: lesion or patient that an image shows, "" if unknown; two images of one group are not independent.
        channel: index along the fourth axis of the image; None, as in every prepared folder: it has three axes.
    """

    case: str
    image: Path
    label: Path | None = None
    site: str = ""
    statistics: Statistics | None = None
    target: int | None = None
    group: str = ""
    channel: int | None = None

    @property
    def labelled(self) -> bool:
        """Whether the truth is known."""
        return self.label is not None or self.target is not None


@dataclass(frozen=True)
class Site:
    """One site's cases.

    Attributes:
        name: its folder's name, which is its client name too.
        root: that folder.
        labels: index -> name, from 0 on, which in segmentation is the background.
        splits: "training", "validation" and "test", each with its cases in the datalist's order.
        statistics: of the training cases; None if the datalist has none, and in a pool.
        dataset: the data set's name, as the datalist says.
        task: what the cases are labelled for.
    """

    name: str
    root: Path
    labels: dict[int, str]
    splits: dict[str, tuple[Case, ...]]
    statistics: Statistics | None = None
    dataset: str = ""
    task: str = SEGMENTATION

    @property
    def classes(self) -> int:
        """Number of classes, the background not counted."""
        return len(self.labels) - task(self.task).background

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
        DatalistError: the datalist is not as described above; each fault names file and entry.
    """
    file = Path(path) / DATALIST if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not found, expected a datalist; see fedpeft data prepare --help")
    file = Path(os.path.abspath(file))  # not resolve(): a linked folder keeps the name of its link, the site
    try:
        task_name, content = read_content(file, json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatalistError(file, [f"{file}: not JSON ({error}); prepare the data again"]) from error
    splits = {split: _cases(file, getattr(content, split), content.statistics) for split in SPLITS}
    _refuse_duplicates(file, splits)
    return Site(file.parent.name, file.parent, content.labels, splits, content.statistics, content.name, task_name)


def datalists_below(root: str | Path) -> list[Path]:
    """Every ``<root>/<site>/datalist.json``, sorted by site.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(Path(root).glob(f"*/{DATALIST}"), key=lambda file: file.parent.name)
    if not files:
        raise FileNotFoundError(f"{root}: no <site>/{DATALIST} below it; make one with fedpeft data prepare or phantom")
    return files


def read_sites(root: str | Path) -> list[Site]:
    """Every site below a folder, sorted by name.

    Raises:
        FileNotFoundError: ``root`` holds no ``<site>/datalist.json``.
        ValueError: a datalist is faulty, or the sites' tasks or label tables differ.
    """
    sites = [read_site(file) for file in datalists_below(root)]
    for site in sites[1:]:
        if site.task != sites[0].task:
            raise ValueError(
                f"tasks differ: site {sites[0].name} is of {sites[0].task}, site {site.name} of {site.task}; keep them "
                "in separate folders"
            )
        if site.labels != sites[0].labels:
            raise ValueError(
                f"label tables differ: site {sites[0].name} has {sites[0].labels}, site {site.name} has {site.labels}; "
                "prepare them with the same labels"
            )
    return sites


def pool(sites: Sequence[Site], name: str = "pool") -> Site:
    """All sites' cases as one site, for centralized training.

    Cases are called ``<site>/<case>`` and keep their own site's statistics, because pooling does not remove the
    differences between scanners.

    Raises:
        ValueError: there is no site, or tasks or label tables differ.
    """
    if not sites or any((site.task, site.labels) != (sites[0].task, sites[0].labels) for site in sites):
        raise ValueError(f"cannot pool {[(site.name, site.labels) for site in sites]}: expected sites with one table")
    splits = {
        split: tuple(replace(case, case=f"{site.name}/{case.case}") for site in sites for case in site.splits[split])
        for split in SPLITS
    }
    return Site(name, sites[0].root.parent, sites[0].labels, splits, dataset=sites[0].dataset, task=sites[0].task)


def write_datalist(
    folder: str | Path,
    name: str,
    labels: Mapping[int, str],
    splits: Mapping[str, Sequence[Case]],
    statistics: Statistics | None,
    task_name: str = SEGMENTATION,
) -> Path:
    """Write ``<folder>/datalist.json``: a temporary file first, then renamed over the old one.

    Args:
        folder: the site's folder, which exists and holds the cases' files.
        name: of the data set.
        labels: index -> name.
        splits: cases by split; a missing split is written as an empty list.
        statistics: of the training cases; images have none.
        task_name: what the cases are labelled for.

    Returns:
        The file.

    Raises:
        ValueError: a case's file lies outside the folder.
    """
    folder = Path(folder)
    volumes = task_name == SEGMENTATION
    content = {
        "name": name,
        **({} if volumes else {"task": task_name}),
        "labels": {str(index): labels[index] for index in sorted(labels)},
        **{split: [_entry(folder, case) for case in splits.get(split, ())] for split in SPLITS},
        **({"statistics": statistics.to_dict() if statistics else None} if volumes else {}),
    }
    file, draft = folder / DATALIST, folder / f".{DATALIST}.{os.getpid()}"
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, file)
    return file


def _entry(folder: Path, case: Case) -> dict[str, str | int]:
    files = {"image": case.image, **({"label": case.label} if case.label else {})}
    for file in files.values():
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{file}: lies outside {folder}; copy it there first")
    relative = {key: file.resolve().relative_to(folder.resolve()).as_posix() for key, file in files.items()}
    target = {} if case.target is None else {"label": case.target}
    return {**relative, **target, "case": case.case, **({"group": case.group} if case.group else {})}


def _cases(file: Path, entries: Sequence[VolumeEntry | ImageEntry], statistics: Statistics | None) -> tuple[Case, ...]:
    """Cases whose files lie below the folder of a datalist."""
    folder, site = file.parent, file.parent.name
    return tuple(
        Case(entry.case, folder / entry.image, site=site, statistics=statistics, **entry.truth(folder))
        for entry in entries
    )


def _refuse_duplicates(file: Path, splits: Mapping[str, Sequence[Case]]) -> None:
    seen: dict[str, str] = {}
    faults = []
    for split in SPLITS:
        for case in splits[split]:
            if case.case in seen:
                faults.append(f"{file}: case {case.case!r} is in {seen[case.case]} and in {split}, expected once")
            seen[case.case] = split
    if faults:
        raise DatalistError(file, faults)

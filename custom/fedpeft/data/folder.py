"""``<site>/<case>/{image,label}`` trees to site folders with a datalist."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fedpeft.data.datalist import SPLITS, Case, Site, read_sites, write_datalist
from fedpeft.data.faults import FaultError
from fedpeft.data.folders import building, refuse_existing
from fedpeft.data.inspection import inspect_case
from fedpeft.data.table import Columns, Key, draw_splits, read_table, write_table
from fedpeft.data.volumes import site_statistics
from fedpeft.spec.datasets import Dataset, dataset

BINARY = {0: "background", 1: "target"}
SPLIT_FILE = "split.csv"


@dataclass(frozen=True)
class Tree:
    """A source tree.

    Attributes:
        source: folder of site folders of case folders; names that begin with a dot are passed over.
        image: path of the image within a case folder.
        label: path of the label within a case folder.
        table: CSV of splits; None: they are drawn.
        columns: the table's columns.
        labels: index -> name.
        seed: of drawn splits.
    """

    source: Path
    image: str
    label: str
    table: Path | None = None
    columns: Columns = field(default_factory=Columns)
    labels: Mapping[int, str] = field(default_factory=lambda: dict(BINARY))
    seed: int = 0


def prepare_folder(tree: Tree, out: str | Path) -> list[Site]:
    """Copy a tree into one folder a site, each with its datalist and statistics, and record the splits.

    Every file is read first. ``out`` is complete or not there at all.

    Args:
        tree: where and what.
        out: folder to make.

    Returns:
        The sites as read back from ``out``.

    Raises:
        FileNotFoundError: the source or the table does not exist.
        FileExistsError: ``out`` exists and is not empty.
        FaultError: the tree, the table or a file is faulty; all faults are listed, nothing is written.
        ValueError: an argument cannot be used.
    """
    row = dataset("folder")
    for name in (tree.image, tree.label):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"file name is {name!r}, expected a path within the case folder")
    refuse_existing(out)
    folders = _scan(tree.source)
    if tree.table is None:
        splits, faults = draw_splits(folders, tree.seed)
    else:
        splits, faults = read_table(tree.table, tree.columns, folders)
    faults += _empty_training(splits)
    for key in sorted(splits.keys() & folders.keys()):
        case = Case(key[1], folders[key] / tree.image, folders[key] / tree.label, key[0])
        faults += inspect_case(case, tree.labels, row.preprocessing)[1]
    if faults:
        raise FaultError(f"{tree.source} cannot be prepared", faults)
    with building(out) as draft:
        for site in sorted({site for site, _ in splits}):
            _write_site(draft / site, tree, row, {key: splits[key] for key in splits if key[0] == site})
        write_table(draft / SPLIT_FILE, splits)
    return read_sites(out)


def _scan(source: Path) -> dict[Key, Path]:
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: not found, expected a folder of <site>/<case>/ folders")
    folders = {
        (site.name, case.name): case
        for site in sorted(source.iterdir())
        if site.is_dir() and not site.name.startswith(".")
        for case in sorted(site.iterdir())
        if case.is_dir() and not case.name.startswith(".")
    }
    if not folders:
        raise FileNotFoundError(f"{source}: no <site>/<case>/ folder in it, expected at least one")
    return folders


def _empty_training(splits: Mapping[Key, str]) -> list[str]:
    trained = {site for (site, _), split in splits.items() if split == "training"}
    return [f"{site}: no training case, expected at least one" for site in sorted({key[0] for key in splits} - trained)]


def _write_site(folder: Path, tree: Tree, row: Dataset, splits: Mapping[Key, str]) -> None:
    cases: dict[str, list[Case]] = {split: [] for split in SPLITS}
    for (site, name), split in sorted(splits.items()):
        for file in (tree.image, tree.label):
            target = folder / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree.source / site / name / file, target)
        cases[split].append(Case(name, folder / name / tree.image, folder / name / tree.label, site))
    statistics = site_statistics(cases["training"], row.preprocessing)
    write_datalist(folder, row.name, tree.labels, cases, statistics)

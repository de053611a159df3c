"""``<site>/<case>/{image,label}`` trees to site folders with a datalist."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fedpeft.common.folders import refuse_existing
from fedpeft.config.datasets import dataset
from fedpeft.data.datalist import Site
from fedpeft.data.prepare.staging import Progress, no_progress
from fedpeft.data.prepare.writing import Item, Source, write_sites
from fedpeft.data.table import Columns, Key, draw_splits, read_table

BINARY = {0: "background", 1: "target"}


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


def prepare_folder(tree: Tree, out: str | Path, progress: Progress = no_progress) -> list[Site]:
    """Copy a tree into one folder a site, each with its datalist and statistics, and record the splits.

    Every file is read first. ``out`` is complete or not there at all.

    Args:
        tree: where and what.
        out: folder to make.
        progress: see ``staging``.

    Returns:
        The sites as read back from ``out``.

    Raises:
        FileNotFoundError: the source or the table does not exist.
        FileExistsError: ``out`` exists and is not empty.
        FaultError: the tree, the table or a file is faulty; all faults are listed, nothing is written.
        ValueError: an argument cannot be used.
    """
    for name in (tree.image, tree.label):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"file name is {name!r}, expected a path within the case folder")
    refuse_existing(out)
    folders = _scan(tree.source)
    if tree.table is None:
        splits, faults = draw_splits(folders, tree.seed)
    else:
        splits, faults = read_table(tree.table, tree.columns, folders)
    items = [
        Item(*key, splits[key], folders[key] / tree.image, folders[key] / tree.label, (tree.image, tree.label))
        for key in sorted(splits.keys() & folders.keys())
    ]
    return write_sites(Source(tree.source, dataset("folder"), tree.labels, items), out, faults, progress).sites


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

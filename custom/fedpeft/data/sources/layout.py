"""Data sets' own layouts: which file is which case's, and which site and split a case belongs to, by names alone.

A layout is a row with two pure functions; everything that touches an image is in ``writing``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fedpeft.common.folders import refuse_existing
from fedpeft.config.datasets import dataset
from fedpeft.data.prepare.staging import Prepared, Progress, no_progress
from fedpeft.data.prepare.writing import Item, Source, write_sites
from fedpeft.data.table import draw_validation, read_rows

KINDS = ("image", "label")
# Folders below the source that files may lie in.
DEPTHS = (1, 2, 3)

Rows = Sequence[Mapping[str, str]]
# Identifier of a case -> kind -> paths below the source; anything but one path is a fault.
Files = dict[str, dict[str, list[str]]]


@dataclass(frozen=True)
class Table:
    """The table that assigns sites and splits.

    Attributes:
        name: of the file as it is published.
        columns: that it must have.
        origin: where it comes from, for people.
    """

    name: str
    columns: tuple[str, ...]
    origin: str


@dataclass
class Assignment:
    """Where cases belong.

    Attributes:
        cases: identifier -> (site, split).
        faults: one sentence each.
    """

    cases: dict[str, tuple[str, str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk as its publishers distribute it.

    Attributes:
        name: of the data set's row.
        form: what the source looks like, for people.
        identify: path below the source -> (identifier of the case, "image" or "label"), or None if it is neither. The
            last part of an identifier is the name of the case's folder.
        assign: (identifiers on disk, rows of the table) -> where cases belong; cases that it leaves out are not part of
            the data set.
        table: None if the layout needs none.
        merge: label value in the files -> index that takes its place.
    """

    name: str
    form: str
    identify: Callable[[str], tuple[str, str] | None]
    assign: Callable[[Collection[str], Rows], Assignment]
    table: Table | None = None
    merge: Mapping[int, int] = field(default_factory=dict)


def prepare(
    layout: Layout,
    source: Path,
    out: Path,
    *,
    table: Path | None = None,
    validation: float | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Prepared:
    """Copy a data set into one folder a site, each with its datalist and statistics, and record the splits.

    Args:
        layout: of the source.
        source: folder that holds the data set; not changed.
        out: folder to make; it is complete or not there at all.
        table: of sites and splits; None: the file of the published name in ``source``.
        validation: share of each site's training cases that become validation, at least one; None: none do.
        seed: of that choice.
        progress: see ``staging``.

    Raises:
        FileNotFoundError: the source holds nothing of this layout, or there is no table.
        FileExistsError: ``out`` exists and is not empty.
        FaultError: names, table or files are faulty; all faults are listed, nothing is written.
        ValueError: the table lacks a column, or an argument is out of range.
    """
    refuse_existing(out)
    files = pair(names_below(source), layout)
    if not files:
        raise FileNotFoundError(f"{source}: no case found in it, expected {layout.form}")
    rows, place = [], source
    if layout.table is not None:
        place = table or source / layout.table.name
        if not place.is_file():
            raise FileNotFoundError(f"{place}: not found; give {layout.table.origin} by --table FILE")
        rows = read_rows(place, dict.fromkeys(layout.table.columns, ""))
    assignment = layout.assign(files, rows)
    faults = [f"{place}: {fault}" for fault in assignment.faults]
    items, incomplete = _items(assignment, files, source, layout)
    if not items and not faults and not incomplete:
        faults.append(f"{place}: none of the {len(files)} cases in {source} is in it, expected {layout.form}")
    if validation is not None:
        splits, spent = draw_validation({(item.site, item.case): item.split for item in items}, validation, seed)
        items = [replace(item, split=splits[item.site, item.case]) for item in items]
        faults += spent
    row = dataset(layout.name)
    found = Source(source, row, dict(row.labels), items, layout.merge)
    prepared = write_sites(found, out, [*faults, *incomplete], progress)
    others = sum(name not in assignment.cases for name in files)
    left_out = [f"{others} cases in {source} are not in {place.name} and were left out"] if others else []
    return replace(prepared, notes=left_out + prepared.notes)


def names_below(source: Path) -> list[str]:
    """Paths of NIfTI files below a folder, sorted, with forward slashes; names that begin with a dot are passed over.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: not found, expected a folder")
    # Not rglob, which does not follow links: data sets are often links into a larger disk.
    found = (path.relative_to(source) for depth in DEPTHS for path in source.glob("*/" * depth + "*.nii.gz"))
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def pair(names: Iterable[str], layout: Layout) -> Files:
    """Images and labels by case: pure."""
    files: Files = {}
    for name in names:
        if (found := layout.identify(name)) is not None:
            files.setdefault(found[0], {kind: [] for kind in KINDS})[found[1]].append(name)
    return files


def _items(assignment: Assignment, files: Files, source: Path, layout: Layout) -> tuple[list[Item], list[str]]:
    """The cases that have one image and one label, and faults about the others."""
    items, faults = [], []
    for name, (site, split) in sorted(assignment.cases.items()):
        case = PurePosixPath(name).name
        unclear = {kind: paths for kind, paths in files[name].items() if len(paths) != 1}
        for kind, paths in unclear.items():
            remedy = f"keep one of {', '.join(paths)}" if paths else f"expected {layout.form}"
            faults.append(f"{site}/{case}: {len(paths)} files for the {kind} in {source}; {remedy}")
        if not unclear:
            image, label = (source / files[name][kind][0] for kind in KINDS)
            items.append(Item(site, case, split, image, label))
    return items, faults

"""Layouts of published sets of volumes: which file belongs to which case, site and split, by names alone.

A layout is two pure functions and a few strings; ``prepare/writer.py`` reads and copies the images.
"""

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from fedpeft.config.datasets import dataset
from fedpeft.data.found import Found, FoundCase, spelled
from fedpeft.data.sources.registry import (
    Source,
    add_partition,
    add_seed,
    add_source,
    add_validation,
    register_source,
)
from fedpeft.data.table import read_table

KINDS = ("image", "label")
# Numbers of folders between the source and a file.
DEPTHS = (0, 1, 2, 3)

Lines = Sequence[Mapping[str, str]]
# Identifier of a case -> kind -> paths below the source; anything but one path is a fault.
Files = dict[str, dict[str, list[str]]]


@dataclass(frozen=True)
class Table:
    """The table that assigns sites and splits.

    Attributes:
        name: name of the file as it is published.
        columns: columns that it must have.
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
    """How the publishers of a data set arrange its files.

    Attributes:
        name: name of the data set.
        form: what the source looks like, for people.
        identify: path below the source -> (identifier of the case, "image" or "label"), or None if it is neither. The
            last part of an identifier is the name of the case's folder.
        assign: (identifiers on disk, lines of the table) -> where cases belong; cases that it leaves out are not part
            of the data set.
        table: None if the layout needs none.
        merge: label value in the files -> index that replaces it.
        one_hospital: whether sites have to be made of one hospital's cases, by a partition.
        note: what else people should know, in whole sentences.
    """

    name: str
    form: str
    identify: Callable[[str], tuple[str, str] | None]
    assign: Callable[[Collection[str], Lines], Assignment]
    table: Table | None = None
    merge: Mapping[int, int] = field(default_factory=dict)
    one_hospital: bool = False
    note: str = ""


def find(layout: Layout, source: Path, table: Path | None = None) -> Found:
    """The cases of a data set.

    Args:
        layout: layout of the source.
        source: folder that holds the data set; not changed.
        table: table of sites and splits; None: the file of the published name in ``source``.

    Raises:
        FileNotFoundError: the source holds nothing of this layout, or there is no table.
        ValueError: the table lacks a column.
    """
    files = pair(names_below(source), layout)
    if not files:
        raise FileNotFoundError(f"{source}: no case found in it, expected {layout.form}")
    lines, place = _table(layout, source, table)
    assignment = layout.assign(files, lines)
    faults = [f"{place}: {fault}" for fault in assignment.faults]
    cases, incomplete = _cases(assignment, files, source, layout)
    if not cases and not faults and not incomplete:
        faults.append(f"{place}: none of the {len(files)} cases in {source} is in it, expected {layout.form}")
    others = sum(name not in assignment.cases for name in files)
    named = place.name if layout.table else "the published list"
    notes = [f"{others} cases in {source} are not in {named} and were left out"] * bool(others)
    labels = [name for _, name in dataset(layout.name).labels or ()]
    return Found(source, layout.name, labels, cases, [*faults, *incomplete], notes, layout.merge)


def register_layout(layout: Layout) -> Layout:
    """Register a data set of this layout as a source; returns the layout."""
    table = f" --table {layout.table.name}" if layout.table else ""
    sites = " --sites 3" if layout.one_hospital else ""
    example = f"fedpeft data prepare {layout.name} --source DIR{table}{sites} --out data/{layout.name} --register"
    register_source(
        Source(
            layout.name, _help(layout), (example,), partial(_add_options, layout),
            lambda args: find(layout, args.source, getattr(args, "table", None)),
        )
    )  # fmt: skip
    return layout


def names_below(source: Path) -> list[str]:
    """Paths of NIfTI files below a folder, sorted, with forward slashes; names that begin with a dot are ignored.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: not found, expected a folder")
    # Not rglob, which does not follow links: data sets are often links into a larger disk.
    found = (path.relative_to(source) for depth in DEPTHS for path in source.glob("*/" * depth + "*.nii.gz"))
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def pair(names: Iterable[str], layout: Layout) -> Files:
    """Paths of images and labels by case, from names alone."""
    files: Files = {}
    for name in names:
        if (found := layout.identify(name)) is not None:
            files.setdefault(found[0], {kind: [] for kind in KINDS})[found[1]].append(name)
    return files


def _table(layout: Layout, source: Path, table: Path | None) -> tuple[Lines, Path]:
    """The lines of the layout's table and its path; no lines and the source if the layout needs no table."""
    if layout.table is None:
        return [], source
    place = table or source / layout.table.name
    if not place.is_file():
        raise FileNotFoundError(f"{place}: not found; give {layout.table.origin} by --table FILE")
    return read_table(place, dict.fromkeys(layout.table.columns, "")), place


def _cases(assignment: Assignment, files: Files, source: Path, layout: Layout) -> tuple[list[FoundCase], list[str]]:
    """The cases that have one image and one label, and faults about the others."""
    cases, faults = [], []
    for name, (site, split) in sorted(assignment.cases.items()):
        case = PurePosixPath(name).name
        unclear = {kind: paths for kind, paths in files[name].items() if len(paths) != 1}
        for kind, paths in unclear.items():
            remedy = f"keep one of {', '.join(paths)}" if paths else f"expected {layout.form}"
            faults.append(f"{site}/{case}: {len(paths)} files for the {kind} in {source}; {remedy}")
        if not unclear:
            image, label = (source / files[name][kind][0] for kind in KINDS)
            cases.append(FoundCase(site, case, image, label, split=split))
    return cases, faults


def _help(layout: Layout) -> str:
    text = f"The source holds {layout.form}."
    if layout.table:
        text += f" Sites and splits are those of {layout.table.origin}; cases that it does not have are left out."
    text += f" Of the label values, {spelled(layout.merge)}." if layout.merge else ""
    text += f" {layout.note}" if layout.note else ""
    return f"{text} All files are read before anything is written, and every fault is listed."


def _add_options(layout: Layout, parser: argparse.ArgumentParser) -> None:
    add_source(parser, "folder of the data set")
    if layout.table:
        parser.add_argument(
            "--table", type=Path, metavar="FILE", help=f"sites and splits (default: {layout.table.name} in the source)"
        )
    add_validation(
        parser,
        "share of each site's training cases to take for validation, at least one (default: none, as published)",
    )
    if layout.one_hospital:
        add_partition(parser)
    add_seed(parser, "of every random choice" if layout.one_hospital else "of that choice")

"""``<site>/<case>/{image,label}`` trees of volumes."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fedpeft.data.found import Found, FoundCase
from fedpeft.data.sources.registry import Source, add_seed, add_source, register_source
from fedpeft.data.table import Columns, Key, read_splits

NAME = "folder"
BINARY = {0: "background", 1: "target"}

HELP = """The source holds <site>/<case>/ folders, each with an image and a label of the given names. All files are
read before anything is written, and every fault is listed. A case that is in the table but not on disk, or the
reverse, is a fault; so is a split other than train, training, val, valid, validation and test, unless it is left out
on purpose with --ignore-split. Without a table each site is split 70 / 10 / 20. The splits are kept in split.csv."""
EXAMPLES = (
    "fedpeft data prepare folder --source lgg --image flair.nii.gz --label mask.nii.gz \\\n"
    "    --table lgg/manifest.csv --case-column case --split-column split --out data/lgg --register",
    "fedpeft data prepare folder --source scans --image ct.nii.gz --label seg.nii.gz --labels 1=kidney,2=tumour \\\n"
    "    --seed 7 --out data/kidneys",
)


@dataclass(frozen=True)
class Tree:
    """A source tree.

    Attributes:
        source: folder of <site>/<case>/ folders; names that begin with a dot are ignored.
        image: path of the image within a case folder.
        label: path of the label within a case folder.
        table: CSV of splits; None: the source has none.
        columns: the table's columns.
        labels: index -> name.
    """

    source: Path
    image: str
    label: str
    table: Path | None = None
    columns: Columns = field(default_factory=Columns)
    labels: Mapping[int, str] = field(default_factory=lambda: dict(BINARY))


def find_folder(tree: Tree) -> Found:
    """The cases of a tree.

    Raises:
        FileNotFoundError: the source or the table does not exist.
        ValueError: a file name leads outside the case folder, or the table lacks a column.
    """
    for name in (tree.image, tree.label):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"file name is {name!r}, expected a path within the case folder")
    folders = _scan(tree.source)
    faults: list[str] = []
    splits: Mapping[Key, str | None] = dict.fromkeys(folders)
    if tree.table is not None:
        splits, faults = read_splits(tree.table, tree.columns, folders)
    files = (tree.image, tree.label)
    cases = [
        FoundCase(*key, folder / tree.image, folder / tree.label, split=splits[key], names=files)
        for key, folder in folders.items()
        if key in splits
    ]
    names = [tree.labels[index] for index in sorted(tree.labels)]
    return Found(tree.source, NAME, names, cases, faults, naming="--labels 1=organ,2=lesion")


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


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "folder of <site>/<case>/ folders")
    parser.add_argument("--image", required=True, metavar="NAME", help="the image's name in a case folder")
    parser.add_argument("--label", required=True, metavar="NAME", help="the label's name in a case folder")
    parser.add_argument("--labels", type=_labels, metavar="1=NAME,...", help="label table (default 1=target)")
    parser.add_argument("--table", type=Path, metavar="CSV", help="table of splits; further columns are ignored")
    parser.add_argument("--case-column", default="case", metavar="C", help="default case")
    parser.add_argument("--split-column", default="split", metavar="C", help="default split")
    parser.add_argument("--site-column", default="site", metavar="C", help="default site; used if the table has it")
    parser.add_argument(
        "--ignore-split", action="append", default=[], metavar="VALUE", help="leave these cases out; may be repeated"
    )
    add_seed(parser, "of the splits where there is no table")


def _labels(text: str) -> dict[int, str]:
    try:
        pairs = [part.split("=", 1) for part in text.split(",")]
        table = {int(index): name.strip() for index, name in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}, expected 1=NAME,2=NAME,...") from error
    table = {0: "background", **table}
    if sorted(table) != list(range(len(table))) or not all(table.values()):
        raise argparse.ArgumentTypeError(f"{text!r}, expected names for 1, 2, ... without a gap")
    return table


def _find(args: argparse.Namespace) -> Found:
    columns = Columns(args.case_column, args.split_column, args.site_column, tuple(args.ignore_split))
    return find_folder(Tree(args.source, args.image, args.label, args.table, columns, args.labels or BINARY))


register_source(Source(NAME, HELP, EXAMPLES, _add_options, _find))

"""``fedpeft data prepare``: data sets in their own layouts, and plain folders, to one folder a site.

Pictures are in ``prepare_pictures``.
"""

import argparse
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fedpeft.cli import prepare_pictures
from fedpeft.config.datasets import DATASETS
from fedpeft.data.prepare.staging import Prepared, Progress
from fedpeft.data.sources import layout as layouts
from fedpeft.data.sources.folder import BINARY, Tree, prepare_folder
from fedpeft.data.sources.layouts import LAYOUTS
from fedpeft.data.table import Columns

ALL = """All files are read before anything is written, and every fault is listed. The splits are kept in split.csv.

examples:
  fedpeft data prepare folder --source scans --image ct.nii.gz --label seg.nii.gz --out data/mine --register
  fedpeft data prepare kits19 --source kits19/data --table thresholded_sites.csv --out data/kits19 --register
  fedpeft data prepare ixi --help
"""
FOLDER = """The source holds <site>/<case>/ folders, each with an image and a label of the given names. All files are
read before anything is written, and every fault is listed. A case that is in the table but not on disk, or the
reverse, is a fault; so is a split other than train, training, val, valid, validation and test, unless it is left out
on purpose with --ignore-split. Without a table each site is split 70 / 10 / 20. The splits are kept in split.csv.

examples:
  fedpeft data prepare folder --source lgg --image flair.nii.gz --label mask.nii.gz \\
      --table lgg/manifest.csv --case-column case --split-column split --out data/lgg --register
  fedpeft data prepare folder --source scans --image ct.nii.gz --label seg.nii.gz --labels 1=kidney,2=tumour \\
      --seed 7 --out data/kidneys
"""


def add_parser(subparsers: Any) -> list[argparse.ArgumentParser]:
    """Add ``prepare`` with a subcommand for folders, one for each layout and those of pictures; returns their parsers.

    Each parser sets ``prepare``, a function of arguments and progress.
    """
    parser = add_command(subparsers, "prepare", "a real data set's own layout to one folder a site", ALL)
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    folder = add_command(commands, "folder", "a tree of <site>/<case>/ folders", FOLDER)
    _add_folder(folder)
    made = [folder]
    for layout in LAYOUTS.values():
        made.append(add_command(commands, layout.name, DATASETS[layout.name].title, _help(layout)))
        _add_layout(made[-1], layout)
    return made + prepare_pictures.add_parsers(partial(add_command, commands))


def add_command(commands: Any, name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    """A subcommand's parser whose help ends in ``epilog`` as it is."""
    return commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def prepare(args: argparse.Namespace) -> Prepared:
    """Prepare what the arguments say; Ctrl-C and a request to terminate leave nothing behind.

    Raises:
        ValueError, OSError: with everything a person needs to repair the source.
    """
    with _terminated_is_interrupted(), _bar() as progress:
        return args.prepare(args, progress)


def _folder(args: argparse.Namespace, progress: Progress) -> Prepared:
    columns = Columns(args.case_column, args.split_column, args.site_column, tuple(args.ignore_split))
    tree = Tree(args.source, args.image, args.label, args.table, columns, args.labels or BINARY, args.seed)
    return Prepared(prepare_folder(tree, args.out, progress), [])


def _layout(args: argparse.Namespace, progress: Progress) -> Prepared:
    return layouts.prepare(
        LAYOUTS[args.dataset], args.source, args.out, table=getattr(args, "table", None), validation=args.validation,
        seed=args.seed, progress=progress,
    )  # fmt: skip


def _help(layout: layouts.Layout) -> str:
    text, table = f"The source holds {layout.form}.", ""
    if layout.table:
        text += f" Sites and splits are those of {layout.table.origin}; cases that it does not have are left out."
        table = f" --table {layout.table.name}"
    text += "".join(f" Label value {value} becomes {index}." for value, index in layout.merge.items())
    text += " All files are read before anything is written, and every fault is listed."
    example = f"fedpeft data prepare {layout.name} --source DIR{table} --out data/{layout.name} --register"
    return f"{textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False)}\n\nexample:\n  {example}\n"


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="folder of <site>/<case>/ folders; not changed")
    parser.add_argument("--image", required=True, metavar="NAME", help="the image's name in a case folder")
    parser.add_argument("--label", required=True, metavar="NAME", help="the label's name in a case folder")
    parser.add_argument("--labels", type=_labels, metavar="1=NAME,...", help="label table (default 1=target)")
    parser.add_argument("--table", type=Path, metavar="CSV", help="table of splits; further columns do not matter")
    parser.add_argument("--case-column", default="case", metavar="C", help="default case")
    parser.add_argument("--split-column", default="split", metavar="C", help="default split")
    parser.add_argument("--site-column", default="site", metavar="C", help="default site; used if the table has it")
    parser.add_argument(
        "--ignore-split", action="append", default=[], metavar="VALUE", help="leave these cases out; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the splits where there is no table (default 0)")
    parser.set_defaults(prepare=_folder)


def _add_layout(parser: argparse.ArgumentParser, layout: layouts.Layout) -> None:
    parser.add_argument("--source", type=Path, required=True, help="folder of the data set; not changed")
    if layout.table:
        parser.add_argument(
            "--table", type=Path, metavar="FILE", help=f"sites and splits (default: {layout.table.name} in the source)"
        )
    parser.add_argument(
        "--validation", type=float, metavar="SHARE",
        help="share of each site's training cases to take for validation, at least one (default: none, as published)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of that choice (default 0)")
    parser.set_defaults(prepare=_layout)


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


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """A polite kill, as a batch system sends it, unwinds like Ctrl-C: what was half-written goes."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bar() -> Iterator[Progress]:
    """A progress bar with the time that is left, on a terminal only, so that output can be kept or parsed."""
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)

"""``fedpeft data prepare``: a subcommand for every registered source of data."""

import argparse
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fedpeft.config.datasets import dataset
from fedpeft.data.prepare.staging import Prepared, Progress
from fedpeft.data.sources.registry import SOURCES, Source

ALL = """All files are read before any is written, and all faults are listed. split.csv records the splits.

examples:
  fedpeft data prepare folder --source scans --image ct.nii.gz --label seg.nii.gz --out data/mine --register
  fedpeft data prepare kits19 --source kits19/data --table thresholded_sites.csv --out data/kits19 --register
  fedpeft data prepare ixi --help
"""


def add_parser(subparsers: Any) -> list[argparse.ArgumentParser]:
    """Add ``prepare`` with a subcommand for each source; return the parsers of these."""
    parser = add_command(subparsers, "prepare", "convert a data set from its own layout to a folder for each site", ALL)
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    return [_add_source(commands, source) for _, source in sorted(SOURCES.items())]


def add_command(commands: Any, name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    """Add a subcommand's parser whose help ends with ``epilog``, line breaks included."""
    return commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def prepare(args: argparse.Namespace) -> Prepared:
    """Prepare the data set of the arguments; Ctrl-C and SIGTERM leave no files behind.

    Raises:
        ValueError, OSError: the source is faulty; the message says how to repair it.
    """
    with _terminated_is_interrupted(), _bar() as progress:
        return SOURCES.find(args.dataset).prepare(args, progress)


def _add_source(commands: Any, source: Source) -> argparse.ArgumentParser:
    paragraphs = source.help.split("\n\n")
    text = "\n\n".join(textwrap.fill(part, 110, break_long_words=False, break_on_hyphens=False) for part in paragraphs)
    examples = "\n".join(f"  {line}" for example in source.examples for line in example.split("\n"))
    title = f"example{'s' if len(source.examples) > 1 else ''}"
    parser = add_command(commands, source.name, dataset(source.name).title, f"{text}\n\n{title}:\n{examples}\n")
    source.add_options(parser)
    return parser


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """Handle SIGTERM, which batch systems send, like Ctrl-C, so that half-written files are removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bar() -> Iterator[Progress]:
    """A progress bar with the time left, shown on a terminal only, so that other output can be parsed."""
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)

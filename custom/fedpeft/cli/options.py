"""What several subcommands share: the form of their parsers, options that change a run, tables for a terminal."""

import argparse
import sys
from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.table import Table

from fedpeft.config.backbones import BACKBONES
from fedpeft.config.methods import METHODS
from fedpeft.config.run import CODECS, DECAYS, INITIALS, LOSSES, PRECISIONS, WEIGHTS

# Option -> (type, help). Options that are not given leave the recipe as it is.
RUN_OPTIONS: dict[str, tuple[type, str]] = {
    "rounds": (int, "rounds of the federation; local and centralized runs have as many"),
    "local_epochs": (float, "passes over a site's data in a round, may be a fraction"),
    "rank": (int, "adapter rank"),
    "side": (int, "image size in pixels"),
    "batch": (int, "stacks of slices, or images, in a step"),
    "stride": (int, "slices between the starts of two stacks; the paper has 1"),
    "negatives": (float, "stacks without foreground, as a share of those with it"),
    "prompts": (int, "prompt tokens, of methods that have some"),
    "blocks": (int, "blocks that a round selects, of methods that select some"),
    "patience": (int, "end the run after so many rounds without a better validation"),
    "learning_rate": (float, "peak learning rate"),
}
CHOICES: dict[str, tuple[tuple[str, ...], str]] = {
    "weights": (WEIGHTS, "how sites are weighted"),
    "codec": (CODECS, "how tensors are encoded on the wire"),
    "initial": (INITIALS, "weights to start from: the backbone's own, medical ones, or none"),
    "loss": (LOSSES, "of classification"),
    "decay": (DECAYS, "of the learning rate, to zero at the run's end"),
    "precision": (PRECISIONS, "of a step's products; auto: bfloat16 where the processor computes it"),
}


def subparser(subparsers: Any, name: str, help_: str, example: str) -> argparse.ArgumentParser:
    """A subcommand's parser with an example under its help."""
    return subparsers.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run_options(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Add options that override fields of a run, except those that the subcommand takes in another form."""
    parser.add_argument("--backbone", choices=sorted(BACKBONES), help="foundation model")
    for name, (type_, text) in RUN_OPTIONS.items():
        if name not in without:
            parser.add_argument(f"--{name.replace('_', '-')}", type=type_, help=text)
    for name, (choices, text) in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, help=text)


def given(args: argparse.Namespace, without: Collection[str] = ()) -> dict[str, Any]:
    """Field of a run -> value, for each option that was given."""
    names = {"backbone", *RUN_OPTIONS, *CHOICES} - set(without)
    return {name: getattr(args, name) for name in sorted(names) if getattr(args, name) is not None}


def method_list(text: str) -> list[str]:
    """Parse comma-separated method names."""
    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown method {unknown[0]!r}; known: {', '.join(METHODS)}")
    return names


def print_table(columns: list[str], lines: list[list[str]], title: str = "") -> None:
    """Print a table: first column left, others right; nothing is cut off where output is no terminal."""
    table = Table(title=title or None)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    print_wide(table)


def print_wide(table: Table) -> None:
    """Print a table, 160 characters wide where output is no terminal."""
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)

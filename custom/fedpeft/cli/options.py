"""Parsers, lists of methods and tables that several subcommands share."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from fedpeft.config.methods import METHODS


def subparser(subparsers: Any, name: str, help_: str, example: str) -> argparse.ArgumentParser:
    """Add a subcommand's parser, with an example below its help."""
    return subparsers.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def method_list(text: str) -> list[str]:
    """Parse comma-separated method names."""
    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown method {unknown[0]!r}; known: {', '.join(METHODS)}")
    return names


def preset_notes(what: str, presets: Mapping[str, Any]) -> str:
    """The help of an option that names a preset: what it is, and each preset's note."""
    text = "; ".join(f"{name}: {preset.note}" for name, preset in presets.items())
    return f"{what}; explicit options override it. {text}".replace("%", "%%")


def print_table(columns: list[str], lines: list[list[str]], title: str = "", left: int = 1) -> None:
    """Print a table, the first ``left`` columns left-aligned and the others right-aligned."""
    table = Table(title=title or None)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    print_wide(table)


def print_wide(table: Table) -> None:
    """Print a table, 160 characters wide if the output is not a terminal."""
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)

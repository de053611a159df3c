"""The field's own words: none of the project's old private ones names anything, or stands in a help text."""

import argparse
import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from fedpeft.cli.main import COMMANDS

REPOSITORY = Path(__file__).parents[1]
SOURCES = [file for folder in ("custom", "poc") for file in (REPOSITORY / folder).rglob("*.py")]
# Parts of identifiers, and what to say instead.
INSTEAD = {
    "room": "layer, package, space",
    "floor": "lower bound",
    "row": "entry, method, line, record",
    "parcel": "payload",
    "difference": "update, contrast",
    "digest": "fingerprint, sha256",
    "held": "decoded",
    "owed": "residual",
    "due": "pending",
    "draws": "samples, augments, plots, selects",
    "picture": "image, figure",
    "side": "image_size, size",
    "cell": "experiment",
    "ahead": "prefetch",
    "behind": "stale",
    "negatives": "background_ratio",
}
# Whole names that meant something private.
NAMES = {"Closed", "Directed", "Added", "step_size", "plain_way", "decay"}
# What a help text must not say.
PHRASES = [
    *INSTEAD,
    "step size",
    "the plain way",
    "kept back",
    "pictures",
    "rows",
    "rooms",
    "cells",
    "digests",
    "parcels",
]


def parts(name: str) -> list[str]:
    """The words of an identifier, in the singular: ``_held_rows`` -> held, row; ``PictureData`` -> picture, data."""
    words = re.sub("([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_")
    return [word for each in words for word in {each, each.removesuffix("s")}]


def defined(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module defines, with its line: functions, classes, arguments, variables, aliases."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, 0


def private(name: str) -> bool:
    return name in NAMES or any(part in INSTEAD for part in parts(name))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_nothing_is_called_by_a_private_word(file):
    found = [f"{name} in line {line}" for name, line in defined(ast.parse(file.read_text())) if private(name)]
    found += [name for name in file.relative_to(REPOSITORY).with_suffix("").parts if private(name)]
    assert not found, f"{file}: {', '.join(found)}; see INSTEAD in {Path(__file__).name}"


def helps(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """The help text of a command and of all below it."""
    yield parser.prog, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from helps(below)


def test_no_help_text_says_a_private_word():
    parser = argparse.ArgumentParser(prog="fedpeft")
    commands = parser.add_subparsers()
    for name, help_ in COMMANDS.items():
        import_module(f"fedpeft.cli.{name}").add_parser(commands, help_)
    for command, text in helps(parser):
        plain = " ".join(text.split())
        for phrase in PHRASES:
            assert not re.search(rf"\b{phrase}\b", plain), f"{command} --help says {phrase!r}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("held_rows", True), ("PictureData", True), ("step_size", True), ("weight_decay", False), ("sides", True),
     ("consider", False), ("decay", True), ("Added", True), ("outside", False), ("draws_tensor", True)],
)  # fmt: skip
def test_what_counts_as_private(name, expected):
    assert private(name) is expected

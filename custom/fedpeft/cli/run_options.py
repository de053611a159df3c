"""Command-line options of a run, derived from the declarations of its fields."""

import argparse
import sys
from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from fedpeft.common.registry import Registry
from fedpeft.config.adapters import option_fields
from fedpeft.config.migrate import RENAMED
from fedpeft.config.sections import SECTION_OF, SECTIONS

# Fields that commands take from arguments of their own or from the data.
OWN = ("method", "dataset", "classes", "labels", "options", "seed")


def fields(without: Collection[str] = ()) -> dict[str, FieldInfo]:
    """Field of a run or option of a method -> its declaration, except ``OWN`` and ``without``."""
    found = {name: SECTIONS[section].model_fields[name] for name, section in SECTION_OF.items()}
    found |= {name: field for name, (_, field) in option_fields().items()}
    return {name: field for name, field in found.items() if name not in (*OWN, *without)}


def add_run_options(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Add an option for every field of a run.

    Args:
        parser: a subcommand's parser.
        without: fields for which the subcommand has options of its own.
    """
    group = parser.add_argument_group(
        "fields of the run",
        "Without an option, a field has the value of the job or recipe; the default counts where that sets none.",
    )
    for name, field in fields(without).items():
        group.add_argument(_flag(name), help=_help(field), **_form(field))
    for old, name in RENAMED.items():
        if name not in without:
            group.add_argument(_flag(old), dest=name, action=_Renamed, help=argparse.SUPPRESS, **_form(fields()[name]))


def given(args: argparse.Namespace, without: Collection[str] = ()) -> dict[str, Any]:
    """Field of a run -> value, for the options that were given."""
    return {name: value for name in fields(without) if (value := getattr(args, name, None)) is not None}


class _Renamed(argparse.Action):
    """An option under its old name, which works for one more version and prints a note."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Set the field, and print the option's new name."""
        print(f"note: {option_string} is called {_flag(self.dest)} now; the next version drops it", file=sys.stderr)
        setattr(namespace, self.dest, values)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    shown = not field.is_required() and field.default is not None and field.default != ()
    return (text + (f" (default {field.default})" if shown else "")).replace("%", "%%")


def _form(field: FieldInfo) -> dict[str, Any]:
    """The arguments of ``add_argument`` that depend on a field's type."""
    choices = _choices(field)
    if choices:
        return {"choices": choices}
    kind = next((item for item in (field.annotation, *get_args(field.annotation)) if item in (bool, int, float)), str)
    if kind is bool:
        return {"action": "store_const", "const": True}
    return {"type": kind, "metavar": {int: "N", float: "X"}.get(kind, "TEXT")}


def _choices(field: FieldInfo) -> Sequence[str]:
    registry = next((item for item in field.metadata if isinstance(item, Registry)), None)
    if registry is not None:
        return sorted(registry)
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()

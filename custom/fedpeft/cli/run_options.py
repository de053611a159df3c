"""Command-line options of a run, made of the declarations of its fields: none is written here by hand."""

import argparse
import sys
from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from fedpeft.common.registry import Registry
from fedpeft.config.adapters import option_fields
from fedpeft.config.migrate import RENAMED
from fedpeft.config.sections import SECTION_OF, SECTIONS

# The command takes these in another way: as arguments of its own, or from the data.
OWN = ("method", "dataset", "classes", "labels", "options", "seed")


def fields(without: Collection[str] = ()) -> dict[str, FieldInfo]:
    """Field or option of a method -> its declaration, but for those that commands take in a form of their own."""
    found = {name: SECTIONS[section].model_fields[name] for name, section in SECTION_OF.items()}
    found |= {name: field for name, (_, field) in option_fields().items()}
    return {name: field for name, field in found.items() if name not in (*OWN, *without)}


def add_run_options(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Add an option for every field of a run; those that are not given leave the run as it is.

    Args:
        parser: of a subcommand.
        without: fields that the subcommand takes in another form.
    """
    group = parser.add_argument_group(
        "fields of the run", "What is not given keeps the value of the recipe or job, or else its default."
    )
    for name, field in fields(without).items():
        group.add_argument(_flag(name), help=_help(field), **_form(field))
    for old, name in RENAMED.items():
        if name not in without:
            group.add_argument(_flag(old), dest=name, action=_Renamed, help=argparse.SUPPRESS, **_form(fields()[name]))


def given(args: argparse.Namespace, without: Collection[str] = ()) -> dict[str, Any]:
    """Field of a run -> value, of the options that were given."""
    return {name: value for name in fields(without) if (value := getattr(args, name, None)) is not None}


class _Renamed(argparse.Action):
    """An option under its old name: it works for one version, with a note."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Set the field, and say what the option is called now."""
        print(f"note: {option_string} is called {_flag(self.dest)} now; the next version drops it", file=sys.stderr)
        setattr(namespace, self.dest, values)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    shown = not field.is_required() and field.default is not None and field.default != ()
    return (text + (f" (default {field.default})" if shown else "")).replace("%", "%%")


def _form(field: FieldInfo) -> dict[str, Any]:
    """What argparse must know of a field's type."""
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

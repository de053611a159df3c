"""Rows by name, with an error that lists what there is."""

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


def find(rows: Mapping[str, Row], name: str, kind: str) -> Row:
    """The row called ``name``.

    Args:
        rows: a table of the spec.
        name: of a row.
        kind: what the table's rows are, for the message.

    Raises:
        ValueError: there is none; the message lists those that exist.
    """
    if name not in rows:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(rows)}")
    return rows[name]

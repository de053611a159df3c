"""Pictures that a CSV table lists, with class, site, split and group as far as it has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from fedpeft.data.entries import inside
from fedpeft.data.prepare.image_preparation import Found, index_of, sorted_labels, with_names
from fedpeft.data.prepare.image_writing import Picture
from fedpeft.data.sources.image_tree import ALONE, DATASET
from fedpeft.data.table import NAMES, read_rows


@dataclass(frozen=True)
class PictureColumns:
    """A table's columns; None: the name below, where the last three need not exist.

    Attributes:
        image: path of the picture, relative to the source or to the table.
        label: name of the class, or its index where the classes are given.
        site: where it lies; without it all are ``site-1``'s.
        split: train | training, val | valid | validation, test; without it splits are drawn.
        group: lesion or patient.
    """

    image: str | None = None
    label: str | None = None
    site: str | None = None
    split: str | None = None
    group: str | None = None


OPTIONAL = ("site", "split", "group")


def read_table_of_pictures(
    source: Path, table: Path, columns: PictureColumns | None = None, labels: Sequence[str] = ()
) -> Found:
    """The pictures of a table.

    Args:
        source: folder that holds the pictures; a path never leads out of it.
        table: CSV with a header line.
        columns: the table's.
        labels: the classes in the order of their indices; empty: what the table has, sorted.

    Raises:
        FileNotFoundError: there is no such folder or table.
        ValueError: the table lacks a column that is named, or an image or label column.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: not found, expected the folder that holds the pictures")
    rows, names = _rows(table, columns or PictureColumns())
    values = [{kind: (row[name] or "").strip() for kind, name in names.items()} for row in rows]
    found = Found(table, DATASET, labels or sorted_labels(value["label"] for value in values if value["label"]))
    roots = _roots(source, table)
    seen: dict[str, int] = {}
    pictures: list[tuple[Picture, str]] = []
    for number, value in enumerate(values, start=2):
        where, path = f"{table}: line {number}", value["image"]
        first = seen.setdefault(path, number)
        faults = _faults(value, found.labels) + [f"{path} is in line {first} already"] * (first != number)
        found.faults += [f"{where}: {fault}" for fault in faults]
        try:
            files = [inside(root, path, where) for root in roots]
        except ValueError as error:
            found.faults.append(str(error))
            continue
        if not faults:
            image = next((file for file in files if file.is_file()), files[0])
            pictures.append((_picture(value, image, found.labels), path))
    found.pictures = with_names(pictures)
    return found


def _picture(value: Mapping[str, str], image: Path, labels: Sequence[str]) -> Picture:
    split = NAMES[value["split"].lower()] if "split" in value else ""
    target = index_of(value["label"], labels)
    return Picture(value.get("site", ALONE), "", split, image, target, value.get("group", ""))


def _rows(table: Path, columns: PictureColumns) -> tuple[list[dict[str, str]], Mapping[str, str]]:
    """The table's rows, and its columns by what they say."""
    given = {item.name: getattr(columns, item.name) for item in fields(columns)}
    needed = {name or kind: f"--{kind}-column" for kind, name in given.items() if name or kind not in OPTIONAL}
    rows = read_rows(table, needed)
    header = rows[0] if rows else needed
    return rows, {kind: name or kind for kind, name in given.items() if (name or kind) in header}


def _roots(source: Path, table: Path) -> list[Path]:
    """What paths may be relative to: a table elsewhere does not make its neighbours readable."""
    folder = table.parent
    within = folder.resolve().is_relative_to(source.resolve()) and folder.resolve() != source.resolve()
    return [source, folder] if within else [source]


def _faults(value: Mapping[str, str], labels: Sequence[str]) -> list[str]:
    faults = []
    if index_of(value["label"], labels) is None:
        faults.append(f"{value['image']}: label is {value['label']!r}, expected {', '.join(labels)}; see --labels")
    if "split" in value and value["split"].lower() not in NAMES:
        faults.append(f"{value['image']}: split is {value['split']!r}, expected {', '.join(NAMES)}")
    return faults

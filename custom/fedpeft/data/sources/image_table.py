"""Images listed in a CSV table, with their class and, where it has them, site, split and group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from fedpeft.data.entries import path_fault
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.sources.image_tree import ALONE, DATASET, index_of, sorted_labels, with_names
from fedpeft.data.table import NAMES, read_table


@dataclass(frozen=True)
class ImageColumns:
    """Names of a table's columns; None takes the attribute's name. The last three need not exist.

    Attributes:
        image: path of the image, relative to the source or to the table.
        label: name of the class, or its index where the classes are given.
        site: the site that has it; without this column all images belong to ``site-1``.
        split: train | training, val | valid | validation, test; without this column splits are chosen at random.
        group: lesion or patient.
    """

    image: str | None = None
    label: str | None = None
    site: str | None = None
    split: str | None = None
    group: str | None = None


OPTIONAL = ("site", "split", "group")


def find_in_table(source: Path, table: Path, columns: ImageColumns | None = None, labels: Sequence[str] = ()) -> Found:
    """The images of a table.

    Args:
        source: folder that holds the images; a path may not lead outside it.
        table: CSV with a header line.
        columns: names of the table's columns.
        labels: the classes in the order of their indices; empty: the table's labels, sorted.

    Raises:
        FileNotFoundError: there is no such folder or table.
        ValueError: the table lacks a column that ``columns`` names, or the image or label column.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: not found, expected the folder that holds the images")
    lines, names = _lines(table, columns or ImageColumns())
    values = [{kind: (line[name] or "").strip() for kind, name in names.items()} for line in lines]
    found = Found(table, DATASET, labels or sorted_labels(value["label"] for value in values if value["label"]))
    roots = _roots(source, table)
    seen: dict[str, int] = {}
    cases: list[tuple[FoundCase, str]] = []
    for number, value in enumerate(values, start=2):
        path = value["image"]
        first = seen.setdefault(path, number)
        faults = _faults(value, found.labels) + [f"{path} is in line {first} already"] * (first != number)
        found.faults += [f"{table}: line {number}: {fault}" for fault in faults]
        if not faults:
            image = next((root / path for root in roots if (root / path).is_file()), roots[0] / path)
            cases.append((_case(value, image, found.labels), path))
    found.cases = with_names(cases)
    return found


def _case(value: Mapping[str, str], image: Path, labels: Sequence[str]) -> FoundCase:
    split = NAMES[value["split"].lower()] if "split" in value else None
    target = index_of(value["label"], labels)
    return FoundCase(
        value.get("site", ALONE), "", image, target=target, split=split, group=value.get("group") or None
    )  # fmt: skip


def _lines(table: Path, columns: ImageColumns) -> tuple[list[dict[str, str]], Mapping[str, str]]:
    """The table's lines, and the names of its columns by their meaning."""
    given = {item.name: getattr(columns, item.name) for item in fields(columns)}
    needed = {name or kind: f"--{kind}-column" for kind, name in given.items() if name or kind not in OPTIONAL}
    lines = read_table(table, needed)
    header = lines[0] if lines else needed
    return lines, {kind: name or kind for kind, name in given.items() if (name or kind) in header}


def _roots(source: Path, table: Path) -> list[Path]:
    """Folders that paths may be relative to; the table's own folder counts only inside the source."""
    folder = table.parent
    within = folder.resolve().is_relative_to(source.resolve()) and folder.resolve() != source.resolve()
    return [source, folder] if within else [source]


def _faults(value: Mapping[str, str], labels: Sequence[str]) -> list[str]:
    faults = [fault] if (fault := path_fault(value["image"])) else []
    if index_of(value["label"], labels) is None:
        faults.append(f"{value['image']}: label is {value['label']!r}, expected {', '.join(labels)}; see --labels")
    if "split" in value and value["split"].lower() not in NAMES:
        faults.append(f"{value['image']}: split is {value['split']!r}, expected {', '.join(NAMES)}")
    return faults

"""CSV tables: read and write tables of splits, and read any other table of a source."""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Site and case.
Key = tuple[str, str]
NAMES = {
    "train": "training", "training": "training",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip

# A message names this many cases that a table lacks and counts the others.
SHOWN = 20
# What a table of cases may say, each by default in a column of that name.
PLACE_COLUMNS = ("case", "site", "split", "group")


@dataclass(frozen=True)
class Columns:
    """A split table's columns.

    Attributes:
        case: names of the cases' folders.
        split: train | training, val | valid | validation, test, in upper or lower case.
        site: names of the sites' folders; if the table has no such column, a case is looked for at every site.
        ignore: values of the split column whose cases are left out on purpose. Any other value is a fault, so that no
            case is lost by a misspelt word.
    """

    case: str = "case"
    split: str = "split"
    site: str = "site"
    ignore: tuple[str, ...] = ()


def read_splits(table: Path, columns: Columns, on_disk: Iterable[Key]) -> tuple[dict[Key, str], list[str]]:
    """Splits from a CSV file, compared with what is on disk.

    Args:
        table: CSV with a header line; further columns are ignored.
        columns: their names.
        on_disk: (site, case) of every case folder.

    Returns:
        Split by (site, case), without the ignored ones, and the faults: a case only on disk or only in the table, twice
        in the table, at several sites, or in an unknown split.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it lacks a column.
    """
    lines = read_table(table, {columns.case: "--case-column", columns.split: "--split-column"})
    keys = list(on_disk)
    found: dict[Key, str] = {}
    faults: list[str] = []
    for number, line in enumerate(lines, start=2):
        where, case, value = f"{table}: line {number}", line[columns.case] or "", (line[columns.split] or "").strip()
        split = "" if value in columns.ignore else NAMES.get(value.lower())
        sites = [line[columns.site]] if columns.site in line else [site for site, name in keys if name == case]
        key = (sites[0] or "", case) if len(sites) == 1 else None
        if split is None:
            faults.append(f"{where}: case {case}: split is {value!r}, expected {', '.join(NAMES)} or --ignore-split")
        if key is None:
            faults.append(f"{where}: case {case}: found at {sites or 'no site'}, expected one; add a column with sites")
        elif key in found:
            faults.append(f"{where}: case {'/'.join(key)} is in the table twice, expected once")
        else:
            found[key] = split or ""
            if key not in keys and split != "":
                faults.append(f"{where}: case {'/'.join(key)} is not on disk, expected a folder of that name")
    faults += [f"{table}: case {'/'.join(key)} is on disk but not in the table" for key in keys if key not in found]
    return {key: split for key, split in found.items() if split}, faults


@dataclass(frozen=True)
class Place:
    """Where a table says that a case belongs; None where the table has no such column.

    Attributes:
        site: name of its site.
        split: "training", "validation" or "test".
        group: lesion or patient that it shows; None also where the line has none.
    """

    site: str | None = None
    split: str | None = None
    group: str | None = None


def read_places(
    table: Path, cases: Collection[str], columns: Mapping[str, str] | None = None
) -> tuple[dict[str, Place], list[str]]:
    """Sites, splits and groups from a CSV file, compared with the cases of a source.

    Args:
        table: CSV with a header line, a column for the case and any of site, split and group, as in ``split.csv``;
            further columns are ignored.
        cases: names of the source's cases.
        columns: "case", "site", "split" or "group" -> name of its column; a missing one has the default, that word.

    Returns:
        Place by case, and the faults: a case only in the source or only in the table, twice in the table, without a
        site, or in an unknown split.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it lacks a column that ``columns`` names or that of the case, or has none of the others.
    """
    given = columns or {}
    names = {kind: given.get(kind, kind) for kind in PLACE_COLUMNS}
    lines = read_table(table, {names[kind]: f"--{kind}-column" for kind in ("case", *given)})
    header = {kind for kind, name in names.items() if not lines or name in lines[0]}
    if header == {"case"}:
        wanted = ", ".join(names[kind] for kind in PLACE_COLUMNS[1:])
        raise ValueError(
            f"{table}: has the columns {', '.join(lines[0])}, expected {names['case']} and any of {wanted}"
        )
    found: dict[str, Place] = {}
    listed: set[str] = set()
    faults: list[str] = []
    for number, line in enumerate(lines, start=2):
        value = {kind: (line.get(name) or "").strip() for kind, name in names.items()}
        split = NAMES.get(value["split"].lower())
        checks = (
            (value["case"] in cases, "is not in the source"),
            (value["case"] not in listed, "is in the table twice, expected once"),
            (bool(value["site"]) or "site" not in header, "has no site"),
            (split is not None or "split" not in header, f"split is {value['split']!r}, expected {', '.join(NAMES)}"),
        )
        faults += [f"{table}: line {number}: case {value['case']}: {fault}" for valid, fault in checks if not valid]
        listed.add(value["case"])
        if all(valid for valid, _ in checks):
            found[value["case"]] = Place(value["site"] or None, split, value["group"] or None)
    absent = [case for case in cases if case not in listed]
    faults += [f"{table}: case {case} is in the source but not in the table" for case in absent[:SHOWN]]
    faults += [f"{table}: {len(absent) - SHOWN} more are not in it"] * (len(absent) > SHOWN)
    return found, faults


def write_splits(path: Path, splits: Mapping[Key, str]) -> None:
    """Write the splits as CSV with the columns site, case and split."""
    write_table(path, ("site", "case", "split"), ((*key, splits[key]) for key in sorted(splits)))


def write_table(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Write a CSV file with a header line."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def read_table(table: Path, columns: Mapping[str, str]) -> list[dict[str, str]]:
    """The lines of a CSV file with a header line, each by column.

    Args:
        table: the file; further columns are ignored.
        columns: required column -> the option that gives the column another name; "" if there is none.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it lacks a column.
    """
    if not table.is_file():
        raise FileNotFoundError(f"{table}: not found, expected a CSV table")
    with table.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        lines, header = list(reader), reader.fieldnames or []
    for name, option in columns.items():
        if name not in header:
            remedy = f"name one by {option}" if option else f"expected {', '.join(columns)}"
            raise ValueError(f"{table}: no column {name!r}, it has {', '.join(header)}; {remedy}")
    return lines

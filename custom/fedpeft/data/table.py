"""Which split a case belongs to: from a table, or drawn and recorded."""

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedpeft.data.datalist import SPLITS

Key = tuple[str, str]
Entry = TypeVar("Entry")
NAMES = {
    "train": "training", "training": "training",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip
SHARES = {"validation": 0.1, "test": 0.2}


@dataclass(frozen=True)
class Columns:
    """A split table's columns.

    Attributes:
        case: names of the cases' folders.
        split: train | training, val | valid | validation, test, in any case of letters.
        site: names of the sites' folders; if the table has no such column, a case is looked for at every site.
        ignore: values of the split column whose cases are left out on purpose. Any other value is a fault: a case must
            not get lost by a misspelt word.
    """

    case: str = "case"
    split: str = "split"
    site: str = "site"
    ignore: tuple[str, ...] = ()


def read_table(table: Path, columns: Columns, on_disk: Iterable[Key]) -> tuple[dict[Key, str], list[str]]:
    """Splits from a CSV file, compared with what is on disk.

    Args:
        table: CSV with a header line; further columns do not matter.
        columns: their names.
        on_disk: (site, case) of every case folder.

    Returns:
        Split by (site, case), without the ignored ones, and the faults: a case on one side only, twice in the table,
        at several sites, or in an unknown split.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it lacks a column.
    """
    rows = read_rows(table, {columns.case: "--case-column", columns.split: "--split-column"})
    keys = list(on_disk)
    found: dict[Key, str] = {}
    faults: list[str] = []
    for number, row in enumerate(rows, start=2):
        where, case, value = f"{table}: line {number}", row[columns.case] or "", (row[columns.split] or "").strip()
        split = "" if value in columns.ignore else NAMES.get(value.lower())
        sites = [row[columns.site]] if columns.site in row else [site for site, name in keys if name == case]
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


def draw_splits(cases: Iterable[Key], seed: int) -> tuple[dict[Key, str], list[str]]:
    """Seeded 70 / 10 / 20 splits, each site by itself: adding a site does not change the others'.

    Args:
        cases: (site, case).
        seed: 0 or more.

    Returns:
        Split by (site, case), and as faults the sites with fewer than three cases.
    """
    sites: dict[str, list[Key]] = {}
    for key in sorted(cases):
        sites.setdefault(key[0], []).append(key)
    splits: dict[Key, str] = {}
    faults = []
    for site, keys in sites.items():
        if len(keys) < len(SPLITS):
            faults.append(f"{site}: {len(keys)} cases, expected at least {len(SPLITS)} to split; give a --table")
        order = shuffled(site, keys, seed)
        for split, share in SHARES.items():
            count = max(1, round(share * len(keys)))
            splits.update(dict.fromkeys(order[:count], split))
            order = order[count:]
        splits.update(dict.fromkeys(order, "training"))
    return dict(sorted(splits.items())), faults


def write_table(path: Path, splits: Mapping[Key, str]) -> None:
    """Record the splits as CSV with the columns site, case and split."""
    write_rows(path, ("site", "case", "split"), ((*key, splits[key]) for key in sorted(splits)))


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file with a header line."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def draw_validation(splits: Mapping[Key, str], share: float, seed: int) -> tuple[dict[Key, str], list[str]]:
    """Move a seeded share of each site's training cases to validation, at least one; the others stay where they are.

    Args:
        splits: split by (site, case).
        share: of the training cases, above 0 and below 1.
        seed: 0 or more.

    Returns:
        Split by (site, case), and as faults the sites that would be left without a training case.

    Raises:
        ValueError: ``share`` or ``seed`` is out of range.
    """
    if not 0 < share < 1 or seed < 0:
        raise ValueError(f"share of validation is {share}, seed {seed}; expected a share between 0 and 1, a seed >= 0")
    moved, faults = dict(splits), []
    for site in sorted({site for site, _ in splits}):
        keys = sorted(key for key, split in splits.items() if key[0] == site and split == "training")
        count = max(1, round(share * len(keys)))
        if count >= len(keys):
            faults.append(f"{site}: {len(keys)} training cases, {count} of them for validation; give a smaller share")
        moved.update(dict.fromkeys(shuffled(site, keys, seed)[:count], "validation"))
    return moved, faults


def read_rows(table: Path, columns: Mapping[str, str]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header line.

    Args:
        table: the file; further columns do not matter.
        columns: columns that it must have -> the option that names another one; "" if there is none.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it lacks a column.
    """
    if not table.is_file():
        raise FileNotFoundError(f"{table}: not found, expected a CSV table of splits")
    with table.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        rows, header = list(reader), reader.fieldnames or []
    for name, option in columns.items():
        if name not in header:
            remedy = f"name one by {option}" if option else f"expected {', '.join(columns)}"
            raise ValueError(f"{table}: no column {name!r}, it has {', '.join(header)}; {remedy}")
    return rows


def shuffled(site: str, items: Sequence[Entry], seed: int) -> list[Entry]:
    """Determined by site and seed alone, so that a site's order does not depend on the others."""
    word = int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big")
    return [items[index] for index in np.random.default_rng((seed, word)).permutation(len(items))]

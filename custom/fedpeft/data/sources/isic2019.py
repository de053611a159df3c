"""ISIC 2019 with the centres and the split of Fed-ISIC2019, and lesions from the collections' own metadata.

Fed-ISIC2019 (FLamby) is the 23,247 of the challenge's training images whose centre is known, split by image: two
pictures of one lesion may lie on both sides.
"""

from collections.abc import Mapping
from pathlib import Path

from fedpeft.config.datasets import dataset
from fedpeft.data.prepare.image_preparation import Found
from fedpeft.data.prepare.image_writing import Picture
from fedpeft.data.table import NAMES, read_rows

NAME = "isic2019"
CENTRES = 6
TABLE = "train_test_split"
COLUMNS = ("image", "target", "center", "fold")
ORIGIN = "FLamby's flamby/datasets/fed_isic2019/dataset_creation_scripts/train_test_split"
# The challenge's archive unpacks into folders of the same name, one in the other.
DEPTHS = range(4)
# Missing files that are named; of a copy of which half is missing one wants to know no more.
SHOWN = 20


def read_isic2019(source: Path, table: Path | None = None, lesions: Path | None = None, partial: bool = False) -> Found:
    """The cases of FLamby's table with their files.

    Args:
        source: folder with <image>.jpg anywhere in it.
        table: FLamby's; None: ``train_test_split`` in the source.
        lesions: CSV of images and lesions, see ``read_lesions``.
        partial: whether cases without a file are left out rather than faults.

    Raises:
        FileNotFoundError: there is no such folder or table, or no picture.
        ValueError: a table lacks a column.
    """
    files = _files(source)
    place = table or source / TABLE
    if not place.is_file():
        raise FileNotFoundError(f"{place}: not found; give {ORIGIN} by --table FILE")
    rows = read_rows(place, dict.fromkeys(COLUMNS, ""))
    labels = [name for _, name in dataset(NAME).labels]
    found, absent, listed = Found(source, NAME, labels), [], set()
    groups = read_lesions(lesions, found.faults) if lesions else {}
    for number, row in enumerate(rows, start=2):
        image, target, centre, fold = ((row[column] or "").strip() for column in COLUMNS)
        faults = _row_faults(image, target, centre, fold, len(labels))
        faults += [f"{image} is in the table twice"] * (image in listed)
        faults += [f"{image}.jpg is there {len(files.get(image, ()))} times"] * (len(files.get(image, ())) > 1)
        found.faults += [f"{place}: line {number}: {fault}" for fault in faults]
        listed.add(image)
        if not faults and image not in files:
            absent.append(f"{place}: line {number}: {image}.jpg is not in {source}; fetch it, or give --partial")
        elif not faults:
            split, path = NAMES[fold.lower()], files[image][0]
            found.pictures.append(Picture(f"centre-{centre}", image, split, path, int(target), groups.get(image, "")))
    found.faults += [] if partial else absent[:SHOWN]
    if len(absent) > SHOWN and not partial:
        found.faults.append(f"{place}: {len(absent) - SHOWN} more are not in {source}")
    others = sum(image not in listed for image in files)
    found.notes += [f"{len(absent)} of {len(rows)} cases are not in {source} and were left out"] * bool(absent)
    found.notes += [f"{others} pictures in {source} are not in {place.name} and were left out"] * bool(others)
    return found


def read_lesions(table: Path, faults: list[str]) -> Mapping[str, str]:
    """Lesion by image, from HAM10000_metadata or ISIC_2019_Training_Metadata.csv.

    Images whose lesion is unknown are left out.

    Args:
        table: CSV with lesion_id and image_id or image.
        faults: images with two lesions are added to it.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it lacks a column.
    """
    rows = read_rows(table, {"lesion_id": ""})
    column = "image_id" if rows and "image_id" in rows[0] else "image"
    if rows and column not in rows[0]:
        raise ValueError(f"{table}: no column 'image_id' or 'image', it has {', '.join(rows[0])}")
    lesions: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        image, lesion = ((row[key] or "").strip() for key in (column, "lesion_id"))
        if lesion and lesions.setdefault(image, lesion) != lesion:
            faults.append(f"{table}: line {number}: {image} is of lesion {lesion}, and of {lesions[image]} before")
    return lesions


def _files(source: Path) -> dict[str, list[Path]]:
    """Pictures by name without ending."""
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: not found, expected a folder")
    files: dict[str, list[Path]] = {}
    # Not rglob, which does not follow links: data sets are often links into a larger disk.
    for depth in DEPTHS:
        for path in sorted(source.glob("*/" * depth + "*.jpg")):
            files.setdefault(path.stem, []).append(path)
    if not files:
        raise FileNotFoundError(f"{source}: no picture found in it, expected <image>.jpg of ISIC 2019")
    return files


def _row_faults(image: str, target: str, centre: str, fold: str, classes: int) -> list[str]:
    checks = (
        (bool(image), "no image"),
        (target in map(str, range(classes)), f"{image}: target is {target!r}, expected 0 to {classes - 1}"),
        (centre in map(str, range(CENTRES)), f"{image}: center is {centre!r}, expected 0 to {CENTRES - 1}"),
        (fold.lower() in NAMES, f"{image}: fold is {fold!r}, expected train or test"),
    )
    return [fault for valid, fault in checks if not valid]

"""ISIC 2019 with the centres and the split of Fed-ISIC2019, and lesions from the collections' own metadata.

Fed-ISIC2019 (FLamby) is the 23,247 of the challenge's training images whose centre is known. It is split by image, so
images of one lesion may be in training and in test.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from fedpeft.config.datasets import dataset
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.sources.images import SHARED, add_shared
from fedpeft.data.sources.registry import Source, add_source, register_source
from fedpeft.data.table import NAMES, read_table

NAME = "isic2019"
CENTRES = 6
TABLE = "train_test_split"
COLUMNS = ("image", "target", "center", "fold")
ORIGIN = "FLamby's flamby/datasets/fed_isic2019/dataset_creation_scripts/train_test_split"
# The challenge's archive unpacks into nested folders of the same name.
DEPTHS = range(4)
# A message names this many missing files and counts the others.
SHOWN = 20

HELP = (
    f"The source holds <image>.jpg of ISIC 2019 in any folder. Sites and splits are those of {ORIGIN}. It is split by "
    "image: give --lesions to list the test cases whose lesion no training or validation case shows."
)
EXAMPLES = (
    f"fedpeft data prepare {NAME} --source ISIC_2019 --table {TABLE} --lesions ISIC_2019_Training_Metadata.csv \\\n"
    f"    --validation 0.1 --out data/{NAME} --register",
    f"fedpeft data prepare {NAME} --source ISIC_2019 --table {TABLE} --partition iid --sites 6 --out data/iid",
)


def find_isic2019(source: Path, table: Path | None = None, lesions: Path | None = None, partial: bool = False) -> Found:
    """The cases of FLamby's table with their files.

    Args:
        source: folder with <image>.jpg anywhere in it.
        table: FLamby's table; None: ``train_test_split`` in the source.
        lesions: CSV of images and lesions, see ``read_lesions``.
        partial: whether cases without a file are left out instead of being faults.

    Raises:
        FileNotFoundError: there is no such folder or table, or no image.
        ValueError: a table lacks a column.
    """
    files = _files(source)
    place = table or source / TABLE
    if not place.is_file():
        raise FileNotFoundError(f"{place}: not found; give {ORIGIN} by --table FILE")
    lines = read_table(place, dict.fromkeys(COLUMNS, ""))
    labels = [name for _, name in dataset(NAME).labels or ()]
    found, absent, listed = Found(source, NAME, labels), [], set[str]()
    groups = read_lesions(lesions, found.faults) if lesions else {}
    for number, line in enumerate(lines, start=2):
        image, target, centre, fold = ((line[column] or "").strip() for column in COLUMNS)
        faults = _line_faults(image, target, centre, fold, len(labels))
        faults += [f"{image} is in the table twice"] * (image in listed)
        faults += [f"{image}.jpg is there {len(files.get(image, ()))} times"] * (len(files.get(image, ())) > 1)
        found.faults += [f"{place}: line {number}: {fault}" for fault in faults]
        listed.add(image)
        if not faults and image not in files:
            absent.append(f"{place}: line {number}: {image}.jpg is not in {source}; fetch it, or give --partial")
        elif not faults:
            split, path = NAMES[fold.lower()], files[image][0]
            found.cases.append(
                FoundCase(f"centre-{centre}", image, path, target=int(target), split=split, group=groups.get(image))
            )
    found.faults += [] if partial else absent[:SHOWN]
    if len(absent) > SHOWN and not partial:
        found.faults.append(f"{place}: {len(absent) - SHOWN} more are not in {source}")
    others = sum(image not in listed for image in files)
    found.notes += [f"{len(absent)} of {len(lines)} cases are not in {source} and were left out"] * bool(absent)
    found.notes += [f"{others} images in {source} are not in {place.name} and were left out"] * bool(others)
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
    lines = read_table(table, {"lesion_id": ""})
    column = "image_id" if lines and "image_id" in lines[0] else "image"
    if lines and column not in lines[0]:
        raise ValueError(f"{table}: no column 'image_id' or 'image', it has {', '.join(lines[0])}")
    lesions: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        image, lesion = ((line[key] or "").strip() for key in (column, "lesion_id"))
        if lesion and lesions.setdefault(image, lesion) != lesion:
            faults.append(f"{table}: line {number}: {image} is of lesion {lesion}, and of {lesions[image]} before")
    return lesions


def _files(source: Path) -> dict[str, list[Path]]:
    """Image files by name without suffix."""
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: not found, expected a folder")
    files: dict[str, list[Path]] = {}
    # Not rglob, which does not follow links: data sets are often links into a larger disk.
    for depth in DEPTHS:
        for path in sorted(source.glob("*/" * depth + "*.jpg")):
            files.setdefault(path.stem, []).append(path)
    if not files:
        raise FileNotFoundError(f"{source}: no image found in it, expected <image>.jpg of ISIC 2019")
    return files


def _line_faults(image: str, target: str, centre: str, fold: str, classes: int) -> list[str]:
    checks = (
        (bool(image), "no image"),
        (target in map(str, range(classes)), f"{image}: target is {target!r}, expected 0 to {classes - 1}"),
        (centre in map(str, range(CENTRES)), f"{image}: center is {centre!r}, expected 0 to {CENTRES - 1}"),
        (fold.lower() in NAMES, f"{image}: fold is {fold!r}, expected train or test"),
    )
    return [fault for valid, fault in checks if not valid]


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "folder that holds the images")
    parser.add_argument("--table", type=Path, metavar="FILE", help=f"sites and splits (default: {TABLE} in the source)")
    parser.add_argument(
        "--lesions", type=Path, metavar="CSV", help="HAM10000_metadata or ISIC_2019_Training_Metadata.csv"
    )
    parser.add_argument("--partial", action="store_true", help="leave out cases of the table that have no file")
    add_shared(parser)


def _find(args: argparse.Namespace) -> Found:
    return find_isic2019(args.source, args.table, args.lesions, args.partial)


register_source(Source(NAME, f"{HELP}\n\n{SHARED}", EXAMPLES, _add_options, _find))

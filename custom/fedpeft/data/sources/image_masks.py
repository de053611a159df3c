"""Images with masks: a folder of each at every site, or one of each with a table of sites."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fedpeft.data.found import Found, FoundCase
from fedpeft.data.sources.image_tree import ALONE, ENDINGS
from fedpeft.data.sources.images import add_shared
from fedpeft.data.sources.registry import Source, add_places, add_source, placed, register_source

NAME = "image_masks"
# What most masks of one class have: 255, or the index itself.
BINARY = {"target": (1, 255)}
# Names of masks in the ISIC archive end so.
SUFFIX = "_segmentation"

HELP = """The source holds <site>/images/ and <site>/masks/, or images/ and masks/ of one site. Images are JPEG or PNG,
in colour or grey, masks PNG of the same size. The mask of <name>.jpg is <name>.png or <name>_segmentation.png, as in
ISIC and HAM10000. Without --labels a mask has 0 for the background and 255 or 1 for the target. A table (--table)
gives sites, splits, and lesions or patients; where it gives no split, each site is split 70 / 10 / 20, with no lesion
or patient in two splits.

All files are read before anything is written, and every fault is listed. Masks are written as PNG with the indices of
the classes. With --partition, cases are redistributed to site-1, site-2, ...; each keeps its split, and the cases of a
lesion or patient stay together."""
EXAMPLES = (
    "fedpeft data prepare image_masks --source polyps --out data/polyps --register",
    "fedpeft data prepare image_masks --source ISIC2018 --images ISIC2018_Task1-2_Training_Input \\\n"
    "    --masks ISIC2018_Task1_Training_GroundTruth --labels 255=lesion --sites 4 --out data/lesions",
    "fedpeft data prepare image_masks --source ham10000 --images part_1 --images part_2 --table metadata.csv \\\n"
    "    --case-column image_id --group-column lesion_id --site-column dataset --out data/ham10000_masks",
    "fedpeft data prepare image_masks --source refuge --labels 128=rim,0=cup --background 255 --out data/refuge",
)


@dataclass(frozen=True)
class MaskTree:
    """Where images and masks are, and what their values mean.

    Attributes:
        source: folder of the two folders, or of sites that have both.
        images: names of folders of images; a site may have some of them.
        masks: name of the folder of masks.
        suffix: what the name of a mask may add to that of its image.
        labels: name of a class -> its values in the masks, in the order of the indices from 1 on.
        background: the value of the background.
    """

    source: Path
    images: Sequence[str] = ("images",)
    masks: str = "masks"
    suffix: str = SUFFIX
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: dict(BINARY))
    background: int = 0


def find_image_masks(tree: MaskTree) -> Found:
    """Every image with its mask; an image without one, or with two, is a fault, and so is a mask without image.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: a folder's name leads outside the source.
    """
    for name in (*tree.images, tree.masks):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"folder is {name!r}, expected a path within the source or a site")
    found = Found(tree.source, NAME, ["background", *tree.labels], naming="--labels 255=lesion,128=rim")
    found.merge = {tree.background: 0, **{v: i for i, of in enumerate(tree.labels.values(), 1) for v in of}}
    for site, folder in _sites(tree):
        images = _by_name(_files(folder / name for name in tree.images), ENDINGS)
        masks = _by_name(_files([folder / tree.masks]), (".png",))
        for name, files in images.items():
            own = [*masks.pop(name, ()), *(masks.pop(f"{name}{tree.suffix}", ()) if tree.suffix else ())]
            faults = _unclear(name, files, "images") + _unclear(name, own, "masks")
            found.faults += [f"{folder}: {fault}" for fault in faults]
            if not faults:
                found.cases.append(FoundCase(site, name, files[0], own[0]))
        found.faults += [f"{file}: mask without an image" for files in masks.values() for file in files]
    if not found.cases and not found.faults:
        raise FileNotFoundError(f"{tree.source}: no image found in it, expected {', '.join(ENDINGS)}")
    return found


def _sites(tree: MaskTree) -> list[tuple[str, Path]]:
    """Site and folder; the source itself if it has images."""
    if not tree.source.is_dir():
        raise FileNotFoundError(f"{tree.source}: not found, expected a folder of <site>/images and <site>/masks")
    folders = [(ALONE, tree.source), *((path.name, path) for path in sorted(tree.source.iterdir()))]
    with_images = [
        (site, folder)
        for site, folder in folders
        if not site.startswith(".") and any((folder / name).is_dir() for name in tree.images)
    ]
    if not with_images:
        wanted = " or ".join(tree.images)
        raise FileNotFoundError(f"{tree.source}: neither {wanted} nor <site>/{wanted} in it; see --images")
    return with_images[:1] if with_images[0][1] == tree.source else with_images


def _files(folders: Iterator[Path] | Sequence[Path]) -> list[Path]:
    return sorted(
        file
        for folder in folders
        if folder.is_dir()
        for file in folder.iterdir()
        if file.is_file() and not file.name.startswith(".")
    )


def _by_name(files: Sequence[Path], endings: Sequence[str]) -> dict[str, list[Path]]:
    """Files with one of the endings, by name without ending."""
    found: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix.lower() in endings:
            found.setdefault(file.stem, []).append(file)
    return found


def _unclear(name: str, files: Sequence[Path], what: str) -> list[str]:
    if len(files) == 1:
        return []
    return [
        f"{name} has {len(files)} {what}{': ' if files else ''}{', '.join(file.name for file in files)}, expected 1"
    ]


def _labels(text: str) -> dict[str, tuple[int, ...]]:
    table: dict[str, tuple[int, ...]] = {}
    try:
        for value, name in (part.split("=", 1) for part in text.split(",")):
            table[name.strip()] = (*table.get(name.strip(), ()), int(value))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}, expected VALUE=NAME,VALUE=NAME,...") from error
    values = [value for own in table.values() for value in own]
    if len(set(values)) < len(values) or not all(table) or not all(0 <= value <= 255 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r}, expected names, and different values from 0 to 255")
    return table


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "folder of <site>/images and <site>/masks, or of images and masks")
    parser.add_argument(
        "--images", action="append", metavar="NAME", help="folder of images (default images); may be repeated"
    )
    parser.add_argument("--masks", default="masks", metavar="NAME", help="folder of masks (default masks)")
    parser.add_argument(
        "--suffix", default=SUFFIX, help=f"what a mask's name may add to its image's (default {SUFFIX})"
    )
    parser.add_argument(
        "--labels", type=_labels, metavar="V=NAME,...",
        help="classes in the order of their indices, each with its value in the masks (default 255=target, or 1); a "
        "name may have several values",
    )  # fmt: skip
    parser.add_argument("--background", type=int, default=0, metavar="V", help="value of the background (default 0)")
    add_places(parser)
    add_shared(parser)


def _find(args: argparse.Namespace) -> Found:
    labels = args.labels or BINARY
    if not 0 <= args.background <= 255 or any(args.background in values for values in labels.values()):
        raise ValueError(f"--background is {args.background}, expected a value from 0 to 255 that is not a label's")
    tree = MaskTree(args.source, args.images or ["images"], args.masks, args.suffix, labels, args.background)
    return placed(find_image_masks(tree), args)


register_source(Source(NAME, HELP, EXAMPLES, _add_options, _find))

"""Images of a few pixels, and trees and tables of them in the layouts that people have."""

import csv
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fedpeft.data.found import FoundCase
from fedpeft.data.sources.image_table import ImageColumns

# file, dx, centre, lesion: four images a lesion, one in three a melanoma.
TABLE = [(f"images/p{n:03d}.png", ("nv", "mel")[n % 3 == 0], "ab"[n % 2], f"L{n // 4}") for n in range(80)]
COLUMNS = ImageColumns(image="file", label="dx", site="centre", group="lesion")

ISIC_HEADER = ("image", "MEL", "NV", "target", "center", "fold", "fold2")
# image, target, center, fold; the first two lie deep, the third beside the table.
ISIC_LINES = (
    ("ISIC_0", 0, 0, "train"), ("ISIC_1", 1, 0, "train"), ("ISIC_2", 1, 0, "train"), ("ISIC_3", 7, 0, "test"),
    ("ISIC_4", 1, 0, "test"), ("ISIC_5", 2, 4, "train"), ("ISIC_6", 2, 4, "train"), ("ISIC_7", 3, 4, "test"),
)  # fmt: skip
# ISIC_3 shows a lesion of the other centre's training, ISIC_7 one that is nowhere else, ISIC_4's is unknown.
LESIONS = {"ISIC_0": "L0", "ISIC_1": "L1", "ISIC_2": "L1", "ISIC_3": "L5", "ISIC_4": "", "ISIC_5": "L5", "ISIC_7": "L7"}


def pixels(name: str, height: int = 8, width: int = 11) -> np.ndarray:
    """(H, W, 3) uint8, the same for the same name."""
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write_image(path: Path, name: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(name or path.as_posix())).save(path)
    return path


def cut(path: Path) -> None:
    """Take the end of a file away."""
    path.write_bytes(path.read_bytes()[:-30])


def write_tree(root: Path, counts: Mapping[str, int], ending: str = ".png") -> Path:
    """Folder below ``root`` -> number of images in it; names are unique in the whole tree."""
    number = 0
    for folder, count in counts.items():
        for _ in range(count):
            write_image(root / folder / f"p{number:03d}{ending}", f"p{number}")
            number += 1
    return root


def write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *lines])
    return path


def write_isic(root: Path) -> Path:
    """FLamby's table, images in three places, one that the table does not have, and lesions in lesions.csv."""
    folders = ("ISIC_2019_Training_Input/ISIC_2019_Training_Input", "part", ".")
    for number in range(len(ISIC_LINES) + 1):
        write_image(root / folders[min(number, 2)] / f"ISIC_{number}.jpg", f"isic {number}")
    lines = [(image, 0.0, 0.0, target, centre, fold, f"{fold}_{centre}") for image, target, centre, fold in ISIC_LINES]
    write_csv(root / "train_test_split", ISIC_HEADER, lines)
    write_csv(root / "lesions.csv", ("lesion_id", "image_id"), [(lesion, image) for image, lesion in LESIONS.items()])
    return root


def made_up(
    count: int, classes: int, sites: int = 3, groups: int = 0, seed: int = 0, splits: bool = True
) -> list[FoundCase]:
    """Cases without files: classes become rarer by halves; ``groups`` groups share some of them."""
    rng = np.random.default_rng(seed)
    odds = 0.5 ** np.arange(classes)
    targets = rng.choice(classes, count, p=odds / odds.sum())
    return [
        FoundCase(
            f"hospital-{rng.integers(sites)}", f"c{number:04d}", Path(f"c{number}.jpg"), target=int(targets[number]),
            split=str(rng.choice(("training", "validation", "test"), p=(0.7, 0.1, 0.2))) if splits else None,
            group=f"g{rng.integers(groups)}" if groups and rng.integers(2) else None,
        )
        for number in range(count)
    ]  # fmt: skip


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))

"""Small images of three classes, made for tests: a colour each, under noise."""

from pathlib import Path

import numpy as np
from PIL import Image

from fedpeft.data.datalist import Case, write_datalist

CLASSES = {0: "red", 1: "green", 2: "blue"}
# Images of every class in each split.
COUNTS = {"training": 4, "validation": 1, "test": 2}


def write_small_images(root: Path, sites: int = 3, edge: int = 24) -> Path:
    """``sites`` folders with 12 training, 3 validation and 6 test images each."""
    for number in range(sites):
        folder = root / f"site-{number + 1}"
        (folder / "images").mkdir(parents=True)
        rng = np.random.default_rng(number)
        splits = {
            split: [
                _case(folder, f"{split}-{target}-{index}", target, rng, edge)
                for target in CLASSES
                for index in range(count)
            ]
            for split, count in COUNTS.items()
        }
        write_datalist(folder, "images", CLASSES, splits, None, "classification")
    return root


def _case(folder: Path, name: str, target: int, rng: np.random.Generator, edge: int) -> Case:
    pixels = rng.integers(0, 120, (edge, edge, 3))
    pixels[..., target] += 80
    file = folder / "images" / f"{name}.png"
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    return Case(name, file, target=target)

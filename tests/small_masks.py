"""Small colour images with a blob each and its mask, made for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

# Images of a site by default.
COUNT = 10


def blob(seed: int, height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """A brown ellipse on noisy skin, (H, W, 3) uint8, and its mask, (H, W) 0 or 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0.35, 0.65, 2) * (height, width)
    axes = rng.uniform(0.15, 0.3, 2) * height
    mask = ((y - centre[0]) / axes[0]) ** 2 + ((x - centre[1]) / axes[1]) ** 2 < 1
    image = np.array([215, 165, 140]) + rng.normal(0, 12, (height, width, 3))
    image[mask] = np.array([110, 60, 40]) + rng.normal(0, 12, (int(mask.sum()), 3))
    return image.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def write_small_masks(root: Path, sites: int = 2, count: int = COUNT, suffix: str = "_segmentation") -> Path:
    """``<site>/images/*.jpg`` and ``<site>/masks/*.png`` with 0 and 255, as ISIC has them."""
    for site in range(sites):
        for number in range(count):
            image, mask = blob(100 * site + number)
            name = f"ISIC_{100 * site + number:07d}"
            for folder in ("images", "masks"):
                (root / f"site-{site + 1}" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / f"site-{site + 1}" / "images" / f"{name}.jpg", quality=95)
            Image.fromarray(mask * 255).save(root / f"site-{site + 1}" / "masks" / f"{name}{suffix}.png")
    return root

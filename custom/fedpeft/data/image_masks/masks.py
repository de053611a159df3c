"""Masks of images as PNG files whose pixels are indices of classes.

They are written with a palette, so that an image viewer shows the classes in colours.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedpeft.common.files import replace

# Okabe and Ito's colours, which people with any colour vision can tell apart: one for each class.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
# PIL's names of modes whose pixels are one number of at most 8 bits.
MODES = ("1", "L", "P")


def read_mask(path: Path) -> np.ndarray:
    """The values of a mask as they are stored: (H, W) uint8, from top to bottom and left to right.

    A palette's values are its indices, those of a mask of 1 bit are 0 and 1. Three equal channels count as one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, not PNG, or neither of 8 bits nor of 1 bit in one channel.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found, expected a mask as PNG file")
    try:
        # Opened twice, because PIL cannot decode a file after it has verified it.
        with Image.open(path, formats=("PNG",)) as image:
            image.verify()
        with Image.open(path, formats=("PNG",)) as image:
            mode, values = image.mode, np.array(image)
    except Exception as error:
        # Decoders report damage by many exceptions: OSError, SyntaxError, struct.error, zlib.error, PIL's own.
        raise ValueError(f"{path}: cannot be read as PNG ({error}); export the mask again as 8-bit PNG") from error
    if mode == "RGB" and (values == values[..., :1]).all():
        mode, values = "L", values[..., 0]
    if mode not in MODES:
        raise ValueError(f"{path}: its pixels are {mode}, expected one channel of 8 bits; export the mask as grey PNG")
    return np.ascontiguousarray(values.astype(np.uint8))


def unknown_values(mask: np.ndarray, known: Collection[int]) -> list[int]:
    """The mask's values that are not among ``known``, ascending."""
    return [int(value) for value in np.unique(mask) if int(value) not in known]


def write_mask(path: Path, mask: np.ndarray | Tensor) -> None:
    """Write a mask (H, W) of indices 0 to 255 atomically as PNG with a palette; index 0 is black."""
    values = torch.as_tensor(mask).to(torch.uint8).numpy()
    image = Image.fromarray(values)
    image.putpalette(_palette())
    replace(path, lambda file: image.save(file, format="PNG", optimize=True))


def _palette() -> list[int]:
    colours = ["#000000", *(COLOURS[index % len(COLOURS)] for index in range(255))]
    return [int(colour[place : place + 2], 16) for colour in colours for place in (1, 3, 5)]

"""Images: read JPEG and PNG files completely, scale them to the network's input, and batch them for training."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import PILReader
from torch import Tensor
from torch.nn import functional

from fedpeft.config.preprocessing import Preprocessing
from fedpeft.data.cache import Cache, content
from fedpeft.data.datalist import Case
from fedpeft.data.images.augment import augment_image

# No other format is decoded, whatever a file's name says.
FORMATS = ("JPEG", "PNG")
# PIL's names of modes with up to 8 bits per channel: grey, palette or colour, with or without transparency.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")

# Mean and standard deviation of red, green and blue, 0 to 1.
Colours = tuple[tuple[float, ...], tuple[float, ...]]


def read_image(path: str | Path) -> Tensor:
    """An image's pixels; grey becomes grey in three channels, transparency is dropped.

    Returns:
        (3, H, W) uint8, from top to bottom and left to right.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, damaged, neither JPEG nor PNG, or does not have 8 bits per channel.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found, expected a JPEG or PNG file")
    try:
        # Read twice, because PIL cannot decode a file after it has verified it.
        PILReader(converter=_verified, formats=FORMATS).read(path)
        reader = PILReader(converter=_rgb, reverse_indexing=False, formats=FORMATS)
        pixels = reader.get_data(reader.read(path))[0]
    except Exception as error:
        # Decoders report damage by many exceptions: OSError, SyntaxError, struct.error, zlib.error, PIL's own.
        raise ValueError(
            f"{path}: cannot be read as JPEG or PNG ({error}); fetch or export it again as 8-bit JPEG or PNG"
        ) from error
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def glance(case: Case, preprocessing: Preprocessing) -> tuple[int, list[str]]:
    """1, the number of a case's images, or 0 and the fault of its header: no pixel is decoded."""
    path = case.image
    try:
        if not path.is_file():
            raise FileNotFoundError("not found")
        PILReader(converter=_known, formats=FORMATS).read(path)
    except Exception as error:
        # Decoders report damage by many exceptions, see ``read_image``.
        return 0, [f"{path}: cannot be read as JPEG or PNG ({error}); fetch or export it again as 8-bit JPEG or PNG"]
    return 1, []


def fit_image(image: Tensor, size: int) -> Tensor:
    """Crop an image to its central square, as wide as its shorter edge, and scale it to the network's input.

    Args:
        image: (3, H, W) uint8.
        size: edge of the square in pixels.

    Returns:
        (3, size, size) uint8, bilinear, antialiased when shrinking.
    """
    height, width = image.shape[1:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = image[:, top : top + edge, left : left + edge]
    return functional.interpolate(square[None], (size, size), mode="bilinear", align_corners=False, antialias=True)[0]


def read_images(
    cases: Sequence[Case], size: int, before_read: Callable[[], None] = lambda: None, cache: Cache | None = None
) -> Tensor:
    """Read and fit images, or take them from the cache if the files have not changed.

    Args:
        cases: at least one.
        size: edge of the network's input in pixels.
        before_read: called before each image is read; an exception from it ends the reading.
        cache: where they are kept; None: nowhere.

    Returns:
        (N, 3, size, size) uint8: 3 size^2 bytes per image, 12 kB for 64 pixels and 151 kB for 224.

    Raises:
        FileNotFoundError, ValueError: an image is missing or faulty.
    """

    def fitted() -> dict[str, Tensor]:
        images = torch.empty(len(cases), 3, size, size, dtype=torch.uint8)
        for place, case in zip(images, cases, strict=True):
            before_read()
            place.copy_(fit_image(read_image(case.image), size))
        return {"images": images}

    if cache is None:
        return fitted()["images"]
    return cache.get(("images", size, *_contents(cases, before_read)), fitted)["images"]


def _contents(cases: Sequence[Case], before_read: Callable[[], None]) -> Iterator[str]:
    for case in cases:
        before_read()
        yield content(case.image)


def normalised(images: Tensor, colours: Colours) -> Tensor:
    """The network's input: (x / 255 - mean) / std in each colour.

    Args:
        images: (..., 3, H, W) uint8.
        colours: the backbone's mean and standard deviation.

    Returns:
        float32 of the same shape.
    """
    return standardised(images.float() / 255, colours)


class ImageData:
    """The images of one site's cases, each once per epoch.

    They are read and fitted once and kept in the cache as bytes, see ``read_images``: 1.5 GB for the 9930 training
    images of the largest centre of Fed-ISIC2019 at 224 pixels.

    Attributes:
        counts: (classes,) int64, images of each class.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        classes: int,
        size: int,
        colours: Colours,
        *,
        batch: int,
        augment: bool = True,
        before_read: Callable[[], None] = lambda: None,
        cache: Cache | None = None,
    ) -> None:
        """Read the cases.

        Args:
            cases: training cases, each with a target.
            classes: number of classes.
            size: edge of the network's input in pixels.
            colours: mean and standard deviation of red, green and blue.
            batch: images in a step, on average.
            augment: whether images are augmented.
            before_read: called before each image is read, which takes a while; an exception from it ends the reading.
            cache: where fitted images are kept; None: in memory alone.

        Raises:
            FileNotFoundError, ValueError: a case is faulty or has no target, or an argument is out of range.
        """
        if not cases:
            raise ValueError("no training case, expected at least one; check the datalist's training split")
        if batch < 1:
            raise ValueError(f"batch is {batch}, expected at least 1")
        for case in cases:
            if case.target is None or not 0 <= case.target < classes:
                raise ValueError(f"{case.image}: label is {case.target}, expected 0 to {classes - 1}")
        self._targets = torch.tensor([case.target for case in cases])
        self.counts = self._targets.bincount(minlength=classes)
        self._batch, self._colours = batch, colours
        self._augment = augment
        self._images = read_images(cases, size, before_read, cache)

    def slices(self) -> int:
        """Images."""
        return len(self._images)

    def steps(self) -> int:
        """Optimiser steps in every epoch."""
        return math.ceil(len(self._images) / self._batch)

    def epoch(self, seed: int, order: Sequence[int] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch's batches: every image once, in random order, divided evenly.

        Args:
            seed: 0 or more; determines order and augmentation.
            order: the batches that are wanted, 0 to ``steps() - 1``; None: all of them in order.

        Yields:
            Images (b, 3, size, size) float32 and targets (b,) int64 of each batch; b is at most ``batch``.
        """
        batches = np.array_split(np.random.default_rng(seed).permutation(len(self._images)), self.steps())
        for index in range(self.steps()) if order is None else order:
            indices = torch.from_numpy(batches[index])
            yield self._batch_of(seed, indices), self._targets[indices]

    def _batch_of(self, seed: int, indices: Tensor) -> Tensor:
        if not self._augment:
            return normalised(self._images[indices], self._colours)
        # An image's augmentation depends on seed and index alone, not on its batch or on the worker.
        augmented = [
            augment_image(self._images[index], np.random.default_rng((seed, index))) for index in indices.tolist()
        ]
        return standardised(torch.stack(augmented), self._colours)


def _verified(image: Any) -> Any:
    with image:
        image.verify()
    return image


def _known(image: Any) -> Any:
    with image:
        _refuse_mode(image)
        return image


def _refuse_mode(image: Any) -> None:
    if image.mode not in MODES:
        raise ValueError(f"its pixels are {image.mode}, expected 8-bit grey, palette or RGB")


def _rgb(image: Any) -> Any:
    with image:
        _refuse_mode(image)
        # PIL converts a palette with transparency correctly only through RGBA.
        return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")


def standardised(images: Tensor, colours: Colours) -> Tensor:
    """(x - mean) / std in each colour, for images (..., 3, H, W) float32 from 0 to 1."""
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in colours)
    return (images - mean) / std

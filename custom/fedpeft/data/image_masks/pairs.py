"""Images with masks, fitted to the network's input, and their batches for training."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedpeft.data.cache import Cache, content
from fedpeft.data.datalist import Case
from fedpeft.data.found import VALUES
from fedpeft.data.image_masks.masks import read_mask, unknown_values
from fedpeft.data.images.images import Colours, read_image, standardised
from fedpeft.data.volumes.augment.registry import AUGMENTATIONS
from fedpeft.data.volumes.fit import FITS

# Pixels of an image are squares.
SPACING = (1.0, 1.0)


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        case: its name.
        pixels: (3, size, size) uint8, fitted to the network's input.
        label: (H, W) uint8 indices of classes at the file's own size; None where the truth is unknown.
        native: height and width of the file.
        fit: how it was fitted, a key of ``FITS``.
    """

    case: str
    pixels: Tensor
    label: Tensor | None
    native: tuple[int, int]
    fit: str


def read_label(case: Case, native: tuple[int, int], labels: Collection[int]) -> Tensor | None:
    """A case's mask, (H, W) uint8; None if it has none.

    Args:
        case: the image's size is ``native``.
        native: height and width.
        labels: indices that the mask may have.

    Raises:
        FileNotFoundError, ValueError: the file is missing or faulty, has another size than its image, or other values.
    """
    if case.label is None:
        return None
    mask = read_mask(case.label)
    if mask.shape != native:
        sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, its image {case.image} {native[1]} x {native[0]}"
        raise ValueError(f"{case.label}: has {sizes}; export both again")
    if unknown := unknown_values(mask, labels):
        raise ValueError(
            f"{case.label}{VALUES}{unknown[:8]} are not among {', '.join(map(str, sorted(labels)))}; "
            "correct the file, or say what they mean when the data is prepared"
        )
    return torch.from_numpy(mask)


def read_pair(case: Case, labels: Collection[int], size: int, fit: str) -> Pair:
    """Read a case and fit its image to the network's input.

    Args:
        case: its files.
        labels: indices that the mask may have.
        size: edge of the square in pixels.
        fit: key of ``FITS``.

    Raises:
        FileNotFoundError, ValueError: a file is missing or faulty.
    """
    image = read_image(case.image)
    native = (image.shape[1], image.shape[2])
    label = read_label(case, native, labels)
    # In float, because splines overshoot, and bytes would wrap around.
    square = FITS[fit].square(image.float(), SPACING, size, "image")
    return Pair(case.case, square.round().clamp(0, 255).to(torch.uint8), label, native, fit)


class MaskData:
    """The images of one site's cases with their masks, each once per epoch.

    They are read and fitted once and kept in the cache, at 4 bytes per pixel of the network's input.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        labels: Collection[int],
        size: int,
        colours: Colours,
        *,
        batch: int,
        augmentation: str = "standard",
        fit: str = "aspect",
        before_read: Callable[[], None] = lambda: None,
        cache: Cache | None = None,
    ) -> None:
        """Read the cases.

        Args:
            cases: training cases, each with a mask.
            labels: indices that a mask may have.
            size: edge of the network's input in pixels.
            colours: mean and standard deviation of red, green and blue.
            batch: images in a step, on average.
            augmentation: name of the augmentation of stacks; an image's channels are its slices.
            fit: how images are fitted, a key of ``FITS``.
            before_read: called before each case is read, which takes a while; an exception from it ends the reading.
            cache: where fitted images are kept; None: in memory alone.

        Raises:
            FileNotFoundError, ValueError: a case is faulty or has no mask, or an argument is out of range.
        """
        if not cases:
            raise ValueError("no training case, expected at least one; check the datalist's training split")
        if batch < 1:
            raise ValueError(f"batch is {batch}, expected at least 1")
        self._batch, self._colours = batch, colours
        self._augment = AUGMENTATIONS.find(augmentation)()

        def read() -> dict[str, Tensor]:
            return _fitted(cases, labels, size, fit, before_read)

        key = ("image masks", sorted(labels), size, fit, *_contents(cases, before_read))
        kept = read() if cache is None else cache.get(key, read)
        self._images, self._labels = kept["images"], kept["labels"]

    def slices(self) -> int:
        """Number of images."""
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
            Images (b, 3, size, size) float32 and labels (b, size, size) int64 of each batch; b is at most ``batch``.
        """
        batches = np.array_split(np.random.default_rng(seed).permutation(len(self._images)), self.steps())
        for index in range(self.steps()) if order is None else order:
            samples = [self._sample(seed, int(number)) for number in batches[index]]
            images = torch.stack([image for image, _ in samples])
            yield standardised(images, self._colours), torch.stack([label for _, label in samples]).long()

    def _sample(self, seed: int, index: int) -> tuple[Tensor, Tensor]:
        # The state depends on the image and not on its batch or on the worker.
        state = np.random.SeedSequence((seed, index)).generate_state(1)[0]
        self._augment.set_random_state(seed=int(state))
        found = self._augment({"image": self._images[index].float() / 255, "label": self._labels[index][None]})
        return found["image"], found["label"][0]


def _fitted(
    cases: Sequence[Case], labels: Collection[int], size: int, fit: str, before_read: Callable[[], None]
) -> dict[str, Tensor]:
    """The fitted images, (N, 3, size, size), and masks, (N, size, size), both uint8."""
    images = torch.empty(len(cases), 3, size, size, dtype=torch.uint8)
    masks = torch.empty(len(cases), size, size, dtype=torch.uint8)
    for case, image, mask in zip(cases, images, masks, strict=True):
        before_read()
        pair = read_pair(case, labels, size, fit)
        if pair.label is None:
            raise ValueError(f"{case.image}: has no mask in the datalist, expected one; training needs it")
        image.copy_(pair.pixels)
        mask.copy_(FITS[fit].square(pair.label[None], SPACING, size, "label")[0])
    return {"images": images, "labels": masks}


def _contents(cases: Sequence[Case], before_read: Callable[[], None]) -> Iterator[str]:
    for case in cases:
        before_read()
        yield content(case.image)
        yield content(case.label)

"""Training batches of stacks of neighbouring slices, determined by a seed."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedpeft.config.preprocessing import Preprocessing
from fedpeft.data.cache import Cache, content
from fedpeft.data.datalist import Case
from fedpeft.data.volumes.augment.registry import AUGMENTATIONS
from fedpeft.data.volumes.positions import ENDS, positions
from fedpeft.data.volumes.slices import FittedSlices, fit_label, fit_slices
from fedpeft.data.volumes.volume import read_volume


@dataclass(frozen=True)
class Slices(FittedSlices):
    """A training volume's slices, fitted to the network's input.

    Attributes:
        label: (D, size, size) uint8.
        positive: (D,) booleans, whether the slice has any foreground.
    """

    label: Tensor
    positive: np.ndarray


class StackData:
    """The stacks of one site's cases.

    An epoch cuts each volume into stacks of ``stack`` slices, ``stride`` apart, from an offset that is random for each
    volume and epoch, so that stacks do not always meet at the same slice; slices beyond the ends repeat the edge.
    ``ends`` says how far stacks go beyond them. An epoch takes all stacks with foreground and ``background_ratio``
    times as many without (at least one if there is one), also chosen at random. With ``stride == stack`` each slice is
    computed once per epoch; with 1, as in the FLAP-SAM paper, ``stack`` times. Slices that repeat an edge are removed
    from the batch, unless a network that mixes slices needs ``whole`` stacks or ``ends`` keeps them.

    Volumes are read, normalised and fitted once and kept in the cache, at 5 bytes per pixel of the network's input.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        labels: Mapping[int, str],
        preprocessing: Preprocessing,
        size: int,
        *,
        batch: int = 4,
        stack: int = 5,
        stride: int = 5,
        background_ratio: float = 0.5,
        augmentation: str = "standard",
        ends: str = "inside",
        whole: bool = False,
        before_read: Callable[[], None] = lambda: None,
        cache: Cache | None = None,
    ) -> None:
        """Read the cases.

        Args:
            cases: training cases, each with a label.
            labels: index -> name.
            preprocessing: how volumes become the network's input.
            size: edge of the network's input in pixels.
            batch: stacks in a step, on average.
            stack: slices in a stack.
            stride: slices between the starts of neighbouring stacks, 1 to ``stack``.
            background_ratio: stacks without foreground, as a share of those with it.
            augmentation: name of the augmentation.
            ends: where stacks lie, a key of ``ENDS``.
            whole: whether every stack has all its ``stack`` slices, repeated ones included.
            before_read: called before each case is read, which takes a while; an exception from it ends the reading.
            cache: where fitted volumes are kept; None: a new one, without a folder.

        Raises:
            FileNotFoundError, ValueError: a case is faulty or has no label, or an argument is out of range.
        """
        if not cases:
            raise ValueError("no training case, expected at least one; check the datalist's training split")
        if not 1 <= stride <= stack or batch < 1 or background_ratio < 0:
            raise ValueError(
                f"batch {batch}, stack {stack}, stride {stride}, background_ratio {background_ratio}: expected "
                "batch >= 1, 1 <= stride <= stack, background_ratio >= 0"
            )
        self.batch, self.stack, self.stride, self.background_ratio = batch, stack, stride, background_ratio
        self.volumes = []
        cache = cache or Cache()
        for case in cases:
            before_read()
            self.volumes.append(read_slices(case, labels, preprocessing, size, cache))
        self._augment = AUGMENTATIONS.find(augmentation)()
        self._ends = ENDS[ends]
        self._whole = whole or self._ends.whole
        self._steps = self._count_steps()

    def steps(self) -> int:
        """Optimiser steps in every epoch; they depend on the cases and the arguments, not on the seed."""
        return self._steps

    def slices(self) -> int:
        """Number of slices of the site's training volumes."""
        return sum(len(volume.image) for volume in self.volumes)

    def epoch(self, seed: int, order: Sequence[int] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch's batches.

        The number of stacks with foreground depends on the offsets, the number of steps does not: the stacks are
        divided evenly, so that a batch has about ``batch`` of them.

        Args:
            seed: 0 or more; determines offsets, choice, order and augmentation.
            order: the batches that are wanted, 0 to ``steps() - 1``; None: all of them in order.

        Yields:
            Images (n, 1, size, size) float32 and labels (n, size, size) int64 of each batch, n up to stacks * stack.
        """
        batches = np.array_split(self._chosen_stacks(np.random.default_rng(seed)), self._steps)
        for index in range(self._steps) if order is None else order:
            stacks = [self._sample(seed, int(volume), int(start)) for volume, start in batches[index]]
            yield torch.cat([image for image, _ in stacks])[:, None], torch.cat([label for _, label in stacks]).long()

    def _starts(self, volume: Slices, offset: int) -> np.ndarray:
        return self._ends.training(len(volume.positive), self.stack, self.stride, offset)

    def _positives(self, volume: Slices, starts: np.ndarray) -> np.ndarray:
        return volume.positive[volume.inside(positions(starts, self.stack))].any(axis=-1)

    def _count_steps(self) -> int:
        with_, without = 0.0, 0.0
        for volume in self.volumes:
            for offset in range(self.stride):
                flags = self._positives(volume, self._starts(volume, offset))
                with_ += flags.sum() / self.stride
                without += (~flags).sum() / self.stride
        return max(1, math.ceil((with_ + min(without, max(1.0, self.background_ratio * with_))) / self.batch))

    def _chosen_stacks(self, rng: np.random.Generator) -> np.ndarray:
        """(stacks, 2) integers in random order: volume and first slice of each stack of an epoch."""
        with_, without = [], []
        for index, volume in enumerate(self.volumes):
            starts = self._starts(volume, int(rng.integers(self.stride)))
            flags = self._positives(volume, starts)
            with_ += [(index, start) for start in starts[flags]]
            without += [(index, start) for start in starts[~flags]]
        count = min(len(without), max(1, round(self.background_ratio * len(with_))))
        chosen = [without[i] for i in rng.permutation(len(without))[:count]]
        stacks = np.array(with_ + chosen)[rng.permutation(len(with_) + count)]
        # A few slices may give fewer stacks than steps; stacks then repeat, since no batch may be empty.
        return np.resize(stacks, (max(len(stacks), self._steps), 2))

    def _sample(self, seed: int, index: int, start: int) -> tuple[Tensor, Tensor]:
        volume = self.volumes[index]
        where = positions(start, self.stack)
        window = volume.inside(where)
        # The state depends on the stack and not on the worker, so no two workers share one.
        state = np.random.SeedSequence((seed, index, start + self.stack)).generate_state(1)[0]
        self._augment.set_random_state(seed=int(state))
        data = self._augment({"image": volume.stack(where), "label": volume.label[window]})
        # Indices never decrease, so a slice that repeats the edge has the index of the one before it.
        kept = slice(None) if self._whole else torch.from_numpy(np.diff(window, prepend=-1) > 0)
        return data["image"][kept], data["label"][kept]


def read_slices(case: Case, labels: Mapping[int, str], preprocessing: Preprocessing, size: int, cache: Cache) -> Slices:
    """A case's fitted slices, from the cache if files, statistics and preprocessing have not changed.

    Raises:
        FileNotFoundError, ValueError: the case is faulty or has no label.
    """
    # The preprocessing's constants depend on the site, which is no part of the files.
    own = case.statistics, preprocessing, preprocessing.window(case.site)
    sources = content(case.image), content(case.label), *own, sorted(labels), size
    kept = cache.get(("slices", *sources), lambda: _fitted(case, labels, preprocessing, size))
    label = kept["label"]
    return Slices(kept["image"], kept.get("limits"), label, label.flatten(1).any(dim=1).numpy())


def _fitted(case: Case, labels: Mapping[int, str], preprocessing: Preprocessing, size: int) -> dict[str, Tensor]:
    volume = read_volume(case, labels, preprocessing)
    if volume.label is None:
        raise ValueError(f"{case.image}: has no label in the datalist, expected one; training needs it")
    slices = fit_slices(volume, size)
    limits = {} if slices.limits is None else {"limits": slices.limits}
    return {"image": slices.image, "label": fit_label(volume, size), **limits}

"""Percentiles over many volumes with one in memory at a time, from counts of each intensity.

They are exact for up to ``LIMIT`` different intensities, as with the Hounsfield units of CT. Beyond that, intensities
are rounded down to multiples of a power of two, the smallest that keeps to the limit. A percentile is then off by less
than one such step, at most four millionths of the intensities' range.
"""

import numpy as np

LIMIT = 1 << 20
# Voxels counted at a time, which bounds the memory that counting needs beside the volume itself.
CHUNK = 1 << 24


class Tally:
    """Counts of intensities."""

    def __init__(self, limit: int = LIMIT) -> None:
        """Start empty.

        Args:
            limit: number of different intensities that are counted exactly, at least 4.
        """
        self.limit = limit
        self.values = np.empty(0, np.float64)
        self.counts = np.empty(0, np.int64)
        self.step = 0.0

    def add(self, voxels: np.ndarray) -> None:
        """Count the intensities of one volume.

        Args:
            voxels: finite, any shape and real type.
        """
        flat = voxels.ravel("K")
        for start in range(0, flat.size, CHUNK):
            self._merge(*_count(flat[start : start + CHUNK]))

    def percentiles(self, wanted: tuple[float, ...]) -> tuple[float, ...]:
        """Percentiles of all voxels, interpolated linearly between neighbours as ``numpy.percentile`` does.

        Args:
            wanted: in percent, 0 to 100.

        Raises:
            ValueError: nothing was counted.
        """
        if not self.counts.size:
            raise ValueError("no voxel was counted, expected at least one")
        last = np.cumsum(self.counts)
        found = []
        for percent in wanted:
            place = percent / 100 * (last[-1] - 1)
            low, high = (self.values[np.searchsorted(last, part, side="right")] for part in _around(place))
            found.append(float(low + (high - low) * (place - np.floor(place))))
        return tuple(found)

    def moments(self, low: float, high: float) -> tuple[float, float]:
        """Mean and standard deviation of all voxels after clipping to ``low`` and ``high``."""
        clipped, total = np.clip(self.values, low, high), self.counts.sum()
        mean = float((clipped * self.counts).sum() / total)
        return mean, float(np.sqrt((self.counts * (clipped - mean) ** 2).sum() / total))

    def _merge(self, values: np.ndarray, counts: np.ndarray) -> None:
        values, counts = np.concatenate((self.values, values)), np.concatenate((self.counts, counts))
        if self.step:
            values = np.floor(values / self.step) * self.step
        self.values, self.counts = _collapse(values, counts)
        if self.values.size > self.limit:
            # Steps are powers of two, so a coarser step never splits values that a finer one has joined.
            width = (self.values[-1] - self.values[0]) / (self.limit // 2)
            self.step = max(2.0 * self.step, float(2.0 ** np.ceil(np.log2(width))))
            self.values, self.counts = _collapse(np.floor(self.values / self.step) * self.step, self.counts)


def _around(place: float) -> tuple[int, int]:
    """The whole numbers next to ``place``, or ``place`` twice if it is one."""
    return int(np.floor(place)), int(np.ceil(place))


def _count(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = float(chunk.min()), float(chunk.max())
    if high - low < LIMIT and (chunk == np.rint(chunk)).all():
        # Many times faster than sorting.
        counts = np.bincount((chunk - low).astype(np.int64))
        present = np.flatnonzero(counts)
        return present + low, counts[present]
    values, counts = np.unique(chunk, return_counts=True)
    return values.astype(np.float64), counts


def _collapse(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, where = np.unique(values, return_inverse=True)
    return unique, np.bincount(where, weights=counts, minlength=unique.size).astype(np.int64)

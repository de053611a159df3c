"""Arrays and labels that the tests of this folder share."""

import numpy as np

LABELS = {0: "background", 1: "organ", 2: "lesion"}


def arrays(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A random image and a label without any symmetry."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[1 : shape[0] // 2, 2:5, 1:3] = 1
    label[1:3, 2:4, 1] = 2
    return rng.integers(1, 500, shape).astype(np.int16), label

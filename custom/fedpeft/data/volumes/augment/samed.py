"""The augmentation of SAMed's published code: quarter turns and a flip, or else a rotation, or neither.

Both have probability one half, the rotation only where there are no turns. This is a new implementation of what
``datasets/dataset_synapse.py`` does at github.com/hitachinsk/SAMed. There, single slices are augmented before they are
resized to the network's input, and workers share a random state; here stacks are, after the resize, each with a seed of
its own.
"""

from torch import Tensor

from fedpeft.data.volumes.augment.moves import rotated, turned
from fedpeft.data.volumes.augment.registry import StackAugmentation, register_augmentation

PROBABILITY = 0.5
# Whole degrees, the last one excluded.
ANGLES = (-20, 20)


class SAMedAugmentation(StackAugmentation):
    """SAMed's augmentation.

    Attributes:
        turns: quarter turns, 0 to 3.
        flip: axis to flip, 0 (down) or 1 (across); None: neither.
        angle: degrees; None: no rotation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.flip: int | None = None
        self.angle: int | None = None

    def randomize(self, data: int) -> None:
        """Choose an augmentation at random, the same for squares of any size."""
        self.turns, self.flip, self.angle = 0, None, None
        if self.R.random_sample() < PROBABILITY:
            self.turns, self.flip = int(self.R.randint(4)), int(self.R.randint(2))
        elif self.R.random_sample() < PROBABILITY:
            self.angle = int(self.R.randint(*ANGLES))

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Augment one stack, see `StackAugmentation`."""
        self.randomize(data["image"].shape[-1])
        image, label = (turned(data[key], self.turns, self.flip) for key in self.keys)
        if self.angle is not None:
            image, label = rotated(image, label, self.angle)
        return {"image": image, "label": label}


register_augmentation("samed", SAMedAugmentation)

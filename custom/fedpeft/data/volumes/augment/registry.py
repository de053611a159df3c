"""The registry of augmentations. A new one is one module of this package that calls ``register_augmentation``."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from fedpeft.common.registry import Registry


class StackAugmentation(Randomizable, MapTransform, ABC):
    """An augmentation of ``{"image", "label"}``, the same for all slices of a stack.

    Call ``set_random_state(seed)`` before each stack: a seed determines the outcome, whoever computes it.
    """

    def __init__(self) -> None:
        MapTransform.__init__(self, ("image", "label"))

    @abstractmethod
    def randomize(self, data: int) -> None:
        """Choose an augmentation at random for squares of ``data`` pixels."""

    @abstractmethod
    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Augment one stack.

        Args:
            data: "image" (N, size, size) float32 and "label" (N, size, size) uint8; not changed.

        Returns:
            Both in the same shapes and types.
        """


AUGMENTATIONS: Registry[Callable[[], StackAugmentation]] = Registry("augmentation", __package__)


def register_augmentation(name: str, make: Callable[[], StackAugmentation]) -> None:
    """Add an augmentation; a run can name it once ``fedpeft.config.preprocessing`` has an entry of the same name.

    Raises:
        ValueError: there is another one of that name.
    """
    AUGMENTATIONS.register(name, make)

"""No augmentation."""

from torch import Tensor

from fedpeft.data.volumes.augment.registry import StackAugmentation, register_augmentation


class Unchanged(StackAugmentation):
    """Stacks stay as they are."""

    def randomize(self, data: int) -> None:
        """Choose nothing."""

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the stack itself."""
        return data


register_augmentation("none", Unchanged)

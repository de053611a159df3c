"""SAM's image encoder as a classifier of pictures; its prompt encoder and mask decoder are left out."""

from torch import Tensor

from fedpeft.config.run import Run
from fedpeft.models.classifier import Classifier
from fedpeft.models.sam.network import image_encoder


class SamClassifier(Classifier):
    """A head on the mean of SAM's image embedding over the grid, which is after the neck.

    Args:
        run: gives backbone, input side and classes.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(image_encoder(run), run.backbone.neck, run.outputs)

    def features(self, images: Tensor) -> Tensor:
        """What the head sees: normalised pictures (B, 3, side, side) -> (B, neck)."""
        return super().features(images).mean(dim=(2, 3))

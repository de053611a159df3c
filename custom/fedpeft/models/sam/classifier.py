"""SAM's image encoder as an image classifier; its prompt encoder and mask decoder are left out."""

from torch import Tensor

from fedpeft.config.run import Run
from fedpeft.models.classifier import Classifier
from fedpeft.models.networks import register_network
from fedpeft.models.sam.network import image_encoder


@register_network("sam", "classification")
class SamClassifier(Classifier):
    """A head on the mean over the grid of SAM's image embedding after the neck.

    Args:
        run: gives backbone, image size and classes.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(image_encoder(run), run.backbone.neck, run.outputs)

    def features(self, images: Tensor) -> Tensor:
        """Features that the head classifies: normalised images (B, 3, size, size) -> (B, neck)."""
        return super().features(images).mean(dim=(2, 3))

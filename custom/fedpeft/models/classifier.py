"""Base of every image classifier: an image encoder, features of the whole image, and a linear head on these."""

from torch import Tensor, nn

from fedpeft.models.adapters.base import ZeroInitLinear


class Classifier(nn.Module):
    """Image encoder and head.

    Args:
        image_encoder: maps images to features.
        width: number of features.
        outputs: number of classes.

    Attributes:
        head: zero at the start, so all classes are equally likely, independent of the seed.
    """

    def __init__(self, image_encoder: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.head = ZeroInitLinear(width, outputs)

    def features(self, images: Tensor) -> Tensor:
        """Compute the features that the head classifies.

        Args:
            images: normalised by the backbone's colours, (B, 3, size, size).

        Returns:
            Features, (B, width).
        """
        return self.image_encoder(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits before the softmax over classes: (B, 3, size, size) -> (B, outputs)."""
        return self.decode(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """Features, which depend on the image encoder alone: (B, 3, size, size) -> (B, width)."""
        return self.features(images)

    def decode(self, features: Tensor) -> Tensor:
        """Logits from features: (B, width) -> (B, outputs)."""
        return self.head(features)

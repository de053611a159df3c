"""Check whether a model's image encoder computes the same at every step, so that its embeddings can be cached."""

from torch import nn

from fedpeft.models.adapters.base import AdapterModule


def encoder_is_frozen(model: nn.Module) -> bool:
    """Whether nothing in the image encoder trains and no adapter is in it.

    Args:
        model: from ``fedpeft.models.initial``, before any round has switched gradients off.
    """
    encoder = model.get_submodule("image_encoder")
    adapted = any(isinstance(module, AdapterModule) for module in encoder.modules())
    return not adapted and not any(parameter.requires_grad for parameter in encoder.parameters())

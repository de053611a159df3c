"""Networks with a frozen image encoder: embeddings are computed once and cached."""

import hashlib
from functools import cached_property
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from fedpeft.data.cache import Cache
from fedpeft.models.initial import fingerprint


class SplitNetwork(Protocol):
    """A network that can stop after its image encoder and go on from there."""

    image_encoder: nn.Module

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, ...) -> embeddings (B, ...)."""

    def decode(self, embeddings: Tensor) -> Tensor:
        """Embeddings (B, ...) -> the network's output."""


class FrozenEncoder(nn.Module):
    """A network that caches its embeddings under the encoder's tensors and the images.

    The embeddings of a batch are one entry: the same image in another batch could differ in the last bit.

    Args:
        network: a `SplitNetwork` whose image encoder is frozen.
        cache: the cache of the embeddings.
    """

    def __init__(self, network: nn.Module, cache: Cache) -> None:
        super().__init__()
        self.network = cast(SplitNetwork, network)
        self._cache = cache

    @property
    def full(self) -> bool:
        """Whether the cache takes no further embeddings; the network then computes them each time."""
        return self._cache.full

    def forward(self, images: Tensor) -> Tensor:
        """The network's output for images (B, ...)."""
        return self.network.decode(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """The network's embeddings of images, on their device and without gradient."""
        pixels = images.detach().cpu().contiguous()
        parts = ("embeddings", self._encoder, *_arithmetic(images.device), tuple(pixels.shape), _sha256(pixels))
        kept = self._cache.get(parts, lambda: {"embedding": self._encoded(images)})["embedding"]
        # Copied, since a memory-mapped tensor is aligned differently, which may change how matrix products round.
        return kept.to(images.device, copy=True)

    def _encoded(self, images: Tensor) -> Tensor:
        # Not inference tensors even in evaluation: training may use the same entry, and autograd has to save it.
        with torch.inference_mode(False), torch.no_grad():
            return self.network.encode(images.clone()).cpu().contiguous()

    @cached_property
    def _encoder(self) -> str:
        return fingerprint(self.network.image_encoder)


def _sha256(pixels: Tensor) -> str:
    return hashlib.sha256(pixels.flatten().view(torch.uint8).numpy().data).hexdigest()


def _arithmetic(device: torch.device) -> tuple[object, ...]:
    """Everything besides encoder and images that changes how an embedding is rounded."""
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return device.type, name, torch.get_num_threads(), torch.get_float32_matmul_precision(), autocast

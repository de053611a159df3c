"""DoRA: LoRA of a weight's direction, with a trained magnitude for each of its columns (Liu et al. 2024)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import AdaptedLinear, replace_module
from fedpeft.models.adapters.lora import LowRank
from fedpeft.models.adapters.registry import register_adapter


class DoRAFactors(LowRank):
    """LoRA's factors with DoRA's magnitude.

    Attributes:
        magnitude: (inputs,), the length of each column; ``DoRALinear`` sets it from the frozen weight.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs, rank)
        self.magnitude = nn.Parameter(torch.empty(inputs))


class DoRALinear(AdaptedLinear):
    """W' x + b with W' = m (W + B A) / ||W + B A||, norms over each column (Liu et al. 2024, equation 5).

    The gradient goes through the norm, as in the paper's experiments.

    Args:
        layer: the layer to adapt.
        adapter: the entry that says which parts of a fused output are adapted.
        rank: of the products.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter, rank: int) -> None:
        super().__init__(layer, adapter, lambda inputs, outputs: DoRAFactors(inputs, outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        adapters, frozen = self.adapters(), self.weight.split(self.width)
        weights = [_updated(weight, adapters.get(part)) for part, weight in zip(self.parts, frozen, strict=True)]
        return linear(x, torch.cat(weights), self.bias)

    @torch.no_grad()
    def read_frozen_weights(self) -> None:
        """Set the magnitudes to the lengths of the frozen weight's columns: the adapted layer begins unchanged."""
        adapters = self.adapters()
        for part, weight in zip(self.parts, self.weight.split(self.width), strict=True):
            if part in adapters:
                adapters[part].magnitude.copy_(torch.linalg.vector_norm(weight.double(), dim=0))


def _updated(weight: Tensor, pair: DoRAFactors | None) -> Tensor:
    """W' of one part of the output, (width, inputs)."""
    if pair is None:
        return weight
    direction = weight + pair.B @ pair.A
    return direction * (pair.magnitude / torch.linalg.vector_norm(direction, dim=0))


@register_adapter("dora", layer=nn.Linear)
def put_dora(model: nn.Module, layers: dict[str, nn.Linear], adapter: Adapter, options: Any, run: Run) -> None:
    """Add DoRA to each of the layers."""
    for path, layer in layers.items():
        replace_module(model, path, DoRALinear(layer, adapter, options.rank))

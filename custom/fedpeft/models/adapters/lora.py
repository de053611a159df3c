"""LoRA: the update of a layer's weight as a low-rank product (Hu et al. 2022)."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import AdaptedLinear, AdapterModule, replace_module
from fedpeft.models.adapters.low_rank_sum import LowRankSum
from fedpeft.models.adapters.registry import register_adapter
from fedpeft.models.initial_values import ZEROS, Gaussian, Initial, Uniform


class LowRank(AdapterModule):
    """The product B A of LoRA (FLAP-SAM, equation 1 with alpha = 1).

    Args:
        inputs: features of the adapted layer's input.
        outputs: features of (the adapted part of) its output.
        rank: r, the first dimension of A and the second of B.

    Attributes:
        A: (rank, inputs), Gaussian at the start.
        B: (outputs, rank), zero at the start: an adapted model begins as the foundation model.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(rank, inputs))
        self.B = nn.Parameter(torch.empty(outputs, rank))

    def initial(self, leaf: str) -> Initial:
        """How a tensor starts."""
        return Gaussian(1 / sqrt(self.A.shape[1])) if leaf == "A" else ZEROS

    def forward(self, x: Tensor) -> Tensor:
        """Return x A^T B^T, (..., inputs) -> (..., outputs)."""
        return linear(linear(x, self.A), self.B)


class RandomLowRank(LowRank):
    """The product B A of factors that both start at random, uniformly within 1 / sqrt(columns), as torch's nn.Linear.

    The spectral norm of B A is then about 2.1 for rank 32 and 768 features.
    """

    def initial(self, leaf: str) -> Initial:
        """How a tensor starts."""
        return Uniform(1 / sqrt(self.get_parameter(leaf).shape[1]))


class LoRALinear(AdaptedLinear):
    """W x + b + s B A dropout(x), with the scale s = alpha / rank, or alpha / sqrt(rank) (rsLoRA).

    The server averages the products B A and knows no scale: one that all sites share commutes with the average,
    mean_k(s B_k A_k) = s mean_k(B_k A_k).

    Args:
        layer: the layer to adapt.
        adapter: the entry that says which parts of a fused output are adapted.
        rank: of the products.
        alpha: None for s = 1, as in the FLAP-SAM paper; otherwise above 0.
        dropout: share of the inputs that the update drops in training, 0 to below 1.
        rslora: whether alpha is divided by the rank's square root (Kalajdzievski 2023).
        factors: class of the products, which says how they start.
    """

    def __init__(
        self,
        layer: nn.Linear,
        adapter: Adapter,
        rank: int,
        alpha: float | None = None,
        dropout: float = 0.0,
        rslora: bool = False,
        factors: type[LowRank] = LowRank,
    ) -> None:
        super().__init__(layer, adapter, lambda inputs, outputs: factors(inputs, outputs, rank))
        self.scale = 1.0 if alpha is None else alpha / (sqrt(rank) if rslora else rank)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        pairs, drops = self.adapters(), self.training and self.dropout > 0
        if drops or torch.is_autocast_enabled(x.device.type) or torch.compiler.is_compiling():
            # Autocast chooses the type of each operation, and the compiler fuses separate operations itself.
            seen = dropout(x, self.dropout) if drops else x
            return self.add(super().forward(x), {part: self._scaled(pair(seen)) for part, pair in pairs.items()})
        starts = tuple(self.parts.index(part) * self.width for part in pairs)
        factors = (*(pair.A for pair in pairs.values()), *(self._scaled(pair.B) for pair in pairs.values()))
        return LowRankSum.apply(x, self.weight, self.bias, starts, *factors)

    def _scaled(self, tensor: Tensor) -> Tensor:
        return tensor if self.scale == 1 else self.scale * tensor


@register_adapter("lora", layer=nn.Linear)
def put_lora(model: nn.Module, layers: dict[str, nn.Linear], adapter: Adapter, options: Any, run: Run) -> None:
    """Add LoRA to each of the layers."""
    _put(model, layers, adapter, options, LowRank)


@register_adapter("lora_random_b", layer=nn.Linear)
def put_random(model: nn.Module, layers: dict[str, nn.Linear], adapter: Adapter, options: Any, run: Run) -> None:
    """Add LoRA with a random B to each of the layers."""
    _put(model, layers, adapter, options, RandomLowRank)


def _put(
    model: nn.Module, layers: dict[str, nn.Linear], adapter: Adapter, options: Any, factors: type[LowRank]
) -> None:
    for path, layer in layers.items():
        adapted = LoRALinear(layer, adapter, options.rank, options.alpha, options.dropout, options.rslora, factors)
        replace_module(model, path, adapted)

"""MoLE: several LoRA experts per layer, mixed by a gate that the layers of an attention share (Wu et al. 2024)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import AdaptedLinear, AdapterModule, replace_module
from fedpeft.models.adapters.lora import LowRank
from fedpeft.models.adapters.registry import register_adapter


class Gate(AdapterModule):
    """Mixing weights of an attention's experts, independent of the input: softmax(sigmoid(theta)).

    Attributes:
        theta: (experts,), zero at the start: all experts weigh the same.
    """

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.empty(experts))

    def forward(self) -> Tensor:
        """The weights, (experts,), sum 1."""
        return torch.softmax(torch.sigmoid(self.theta), dim=0)


class MoLELinear(AdaptedLinear):
    """W x + b + sum_e g_e B_e A_e x.

    Args:
        layer: the layer to adapt.
        adapter: the entry that says which parts of a fused output are adapted.
        rank: of each expert's product.
        gate: gives the g_e, for this layer and others.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter, rank: int, gate: Gate) -> None:
        super().__init__(
            layer, adapter, lambda n, m: nn.ModuleList(LowRank(n, m, rank) for _ in range(len(gate.theta)))
        )
        # In a tuple, so that the gate's parameter has one path, that of the attention.
        self._gate = (gate,)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        weights = self._gate[0]()
        updates = {}
        for part, experts in self.adapters().items():
            hidden = linear(x, torch.cat([expert.A for expert in experts]))
            hidden = hidden * weights.repeat_interleave(experts[0].A.shape[0])
            updates[part] = linear(hidden, torch.cat([expert.B for expert in experts], dim=1))
        return self.add(super().forward(x), updates)


@register_adapter("mole", layer=nn.Linear)
def put_mole(model: nn.Module, layers: dict[str, nn.Linear], adapter: Adapter, options: Any, run: Run) -> None:
    """Add a gate to each attention, and experts to each of the layers."""
    for path, layer in layers.items():
        attention = model.get_submodule(path.rpartition(".")[0])
        if not hasattr(attention, "gate"):
            attention.gate = Gate(options.experts)
        gate = attention.get_submodule("gate")
        assert isinstance(gate, Gate)
        replace_module(model, path, MoLELinear(layer, adapter, options.rank, gate))

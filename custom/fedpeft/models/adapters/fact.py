"""FacT: low-rank updates of many layers that share their bases (Jie and Deng 2023, as MA-SAM uses it)."""

from functools import partial
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import AdaptedLinear, AdapterModule, replace_module
from fedpeft.models.adapters.registry import register_adapter
from fedpeft.models.initial_values import ZEROS, Gaussian, Initial

DROPOUT = 0.1


class TensorTrain(AdapterModule):
    """FacT in tensor-train form: dW_l = V S_l U for all slots l together (Jie and Deng 2023; MA-SAM).

    Args:
        inputs, outputs: features of every adapted part's input and output.
        rank: of the bases.
        slots: adapted parts, in the order of the layers.

    Attributes:
        U: (rank, inputs), Gaussian at the start. V: (outputs, rank), zero at the start.
        S: (slots, rank, rank), Gaussian at the start.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, slots: int) -> None:
        super().__init__()
        self.rank = rank
        self.U = nn.Parameter(torch.empty(rank, inputs))
        self.V = nn.Parameter(torch.empty(outputs, rank))
        self._make_core(slots)

    def _make_core(self, slots: int) -> None:
        self.S = nn.Parameter(torch.empty(slots, self.rank, self.rank))

    def initial(self, leaf: str) -> Initial:
        """How a tensor starts; a core's deviation keeps the size of what passes it."""
        if leaf == "V":
            return ZEROS
        return Gaussian(1 / sqrt(self.U.shape[1] if leaf == "U" else self.rank))

    def core(self, slot: int) -> Tensor:
        """S_l, (rank, rank)."""
        return self.S[slot]


class Tucker(TensorTrain):
    """FacT in Tucker form: S_l = sum_k C[:, :, k] P[k, l].

    Attributes:
        C: (rank, rank, rank) and P: (rank, slots), Gaussian at the start.
    """

    def _make_core(self, slots: int) -> None:
        self.C = nn.Parameter(torch.empty(self.rank, self.rank, self.rank))
        self.P = nn.Parameter(torch.empty(self.rank, slots))

    def core(self, slot: int) -> Tensor:
        """S_l, (rank, rank)."""
        return self.C @ self.P[:, slot]


class FacTLinear(AdaptedLinear):
    """W x + b + V dropout(S_l U x); U and V are shared by all layers (MA-SAM: scale 1, dropout 0.1).

    Args:
        layer: the layer to adapt.
        adapter: the entry that says which parts of a fused output are adapted.
        fact: has the tensors of all layers.
        first: slot of this layer's first adapted part.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter, fact: TensorTrain, first: int) -> None:
        super().__init__(layer, adapter, None)
        # In a tuple, so that its parameters have one path, that of the module which contains all the layers.
        self._fact, self._first = (fact,), first

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        fact = self._fact[0]
        hidden = linear(x, fact.U)
        updates = {
            part: linear(dropout(linear(hidden, fact.core(self._first + index)), DROPOUT, self.training), fact.V)
            for index, part in enumerate(self.slots)
        }
        return self.add(super().forward(x), updates)


def put_fact(
    model: nn.Module,
    layers: dict[str, nn.Linear],
    adapter: Adapter,
    options: Any,
    run: Run,
    *,
    form: type[TensorTrain],
) -> None:
    """Add one FacT to the module that contains all the layers, one level below the model.

    Raises:
        ValueError: layers differ in their features, so that they cannot share bases.
    """
    parts, slots = len(adapter.of) or 1, len(adapter.slots) or 1
    first = next(iter(layers.values()))
    shape = first.in_features, first.out_features // parts
    for path, layer in layers.items():
        if (layer.in_features, layer.out_features // parts) != shape:
            raise ValueError(
                f"{path} has {layer.in_features} inputs and {layer.out_features} outputs, others that match "
                f"{adapter.layer!r} differ: FacT's layers share their bases; give each width an adapter of its own"
            )
    fact = form(*shape, options.rank, len(layers) * slots)
    model.get_submodule(next(iter(layers)).partition(".")[0]).fact = fact
    for number, (path, layer) in enumerate(layers.items()):
        replace_module(model, path, FacTLinear(layer, adapter, fact, number * slots))


register_adapter("fact_tt", layer=nn.Linear)(partial(put_fact, form=TensorTrain))
register_adapter("fact_tk", layer=nn.Linear)(partial(put_fact, form=Tucker))

"""FacT: low-rank updates of many layers that share their bases (Jie and Deng 2023, as MA-SAM uses it)."""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from fedpeft.config.methods import Adapter
from fedpeft.models.adapters.base import AdapterModule
from fedpeft.models.adapters.lora import AdaptedLinear

DROPOUT = 0.1


class TensorTrain(AdapterModule):
    """FacT in tensor-train form: dW_l = V S_l U for all slots l together (Jie and Deng 2023; MA-SAM).

    Args:
        inputs, outputs: features on either side of every adapted part.
        rank: of the bases.
        slots: adapted parts, in the order of the layers.

    Attributes:
        U: (rank, inputs), gaussian at the start. V: (outputs, rank), zero at the start.
        S: (slots, rank, rank), gaussian at the start.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, slots: int) -> None:
        super().__init__()
        self.rank = rank
        self.U = nn.Parameter(torch.empty(rank, inputs))
        self.V = nn.Parameter(torch.empty(outputs, rank))
        self._make_core(slots)

    def _make_core(self, slots: int) -> None:
        self.S = nn.Parameter(torch.empty(slots, self.rank, self.rank))

    def deviation(self, leaf: str) -> float:
        """Standard deviation of a tensor's gaussian at the start; a core's keeps the size of what passes it."""
        return {"U": 1 / sqrt(self.U.shape[1]), "V": 0.0}.get(leaf, 1 / sqrt(self.rank))

    def core(self, slot: int) -> Tensor:
        """S_l, (rank, rank)."""
        return self.S[slot]


class Tucker(TensorTrain):
    """FacT in Tucker form: S_l = sum_k C[:, :, k] P[k, l].

    Attributes:
        C: (rank, rank, rank) and P: (rank, slots), gaussian at the start.
    """

    def _make_core(self, slots: int) -> None:
        self.C = nn.Parameter(torch.empty(self.rank, self.rank, self.rank))
        self.P = nn.Parameter(torch.empty(self.rank, slots))

    def core(self, slot: int) -> Tensor:
        """S_l, (rank, rank)."""
        return self.C @ self.P[:, slot]


class FacTLinear(AdaptedLinear):
    """W x + b + V dropout(S_l U x); U and V are shared by all layers (MA-SAM: scale 1, dropout 0.1)."""

    def __init__(self, layer: nn.Linear, adapter: Adapter, fact: TensorTrain, first: int) -> None:
        super().__init__(layer, adapter, None)
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

"""Low-rank adapters of one linear layer: LoRA, DoRA, and mixtures of LoRA experts."""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fedpeft.config.methods import Adapter
from fedpeft.models.adapters.base import AdapterModule
from fedpeft.models.adapters.low_rank_sum import LowRankSum


class LowRank(AdapterModule):
    """The product B A of LoRA (Hu et al. 2022; FLAP-SAM, equation 1 with alpha = 1).

    Args:
        inputs: features of the adapted layer's input.
        outputs: features of (the adapted part of) its output.
        rank: rows of A and columns of B.

    Attributes:
        A: (rank, inputs), gaussian at the start.
        B: (outputs, rank), zero at the start: an adapted model begins as the foundation model.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(rank, inputs))
        self.B = nn.Parameter(torch.empty(outputs, rank))

    def deviation(self, leaf: str) -> float:
        """Standard deviation of a tensor's gaussian at the start."""
        return 1 / sqrt(self.A.shape[1]) if leaf == "A" else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Return x A^T B^T, (..., inputs) -> (..., outputs)."""
        return linear(linear(x, self.A), self.B)


class AdaptedLinear(nn.Linear):
    """A linear layer W x + b of which all or some parts of the output are adapted.

    Args:
        layer: the layer to adapt; its weight and bias become this module's, unchanged.
        adapter: the row that says which parts of a fused output are adapted.
        part: makes the adapter of one part from the features of its input and output.

    Attributes:
        lora: one adapter, or for a fused output one for each adapted part by its name.

    Raises:
        ValueError: the output cannot be split into the row's parts.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter, part: Callable[[int, int], nn.Module] | None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.parts = adapter.of or ("",)
        self.slots = adapter.slots or ("",)
        if layer.out_features % len(self.parts):
            raise ValueError(
                f'an output of {layer.out_features} features cannot be split into {adapter.of}; correct "of" in the '
                f"adapter's row"
            )
        self.width = layer.out_features // len(self.parts)
        if part is None:
            return
        made = {slot: part(layer.in_features, self.width) for slot in self.slots}
        self.lora = nn.ModuleDict(made) if adapter.slots else made[""]

    def adapters(self) -> dict[str, nn.Module]:
        """The adapter of each adapted part."""
        return dict(self.lora.items()) if isinstance(self.lora, nn.ModuleDict) else {"": self.lora}

    def add(self, y: Tensor, updates: dict[str, Tensor]) -> Tensor:
        """Add the parts' updates, each (..., width), to the layer's own output y (..., out_features)."""
        if len(self.parts) == 1:
            return y + updates[""]
        nothing = y.new_zeros(()).expand(*y.shape[:-1], self.width)
        return y + torch.cat([updates.get(part, nothing) for part in self.parts], dim=-1)


class LoRALinear(AdaptedLinear):
    """W x + b + B A x (Hu et al. 2022)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        pairs = self.adapters()
        if torch.is_autocast_enabled(x.device.type) or torch.compiler.is_compiling():
            # Autocast chooses the type of each operation by itself, and the compiler fuses what follows.
            return self.add(super().forward(x), {part: pair(x) for part, pair in pairs.items()})
        starts = tuple(self.parts.index(part) * self.width for part in pairs)
        factors = (*(pair.A for pair in pairs.values()), *(pair.B for pair in pairs.values()))
        return LowRankSum.apply(x, self.weight, self.bias, starts, *factors)


class DoRAFactors(LowRank):
    """LoRA's factors with DoRA's magnitude.

    Attributes:
        magnitude: (inputs,), the length of each column; ``DoRALinear.measure`` sets it from the frozen weight.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs, rank)
        self.magnitude = nn.Parameter(torch.empty(inputs))


class DoRALinear(AdaptedLinear):
    """W' x + b with W' = m (W + B A) / ||W + B A||, norms over each column (Liu et al. 2024, equation 5).

    The gradient goes through the norm, as in the paper's experiments.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        adapters, rows = self.adapters(), self.weight.split(self.width)
        weights = [self._directed(w, adapters.get(part)) for part, w in zip(self.parts, rows, strict=True)]
        return linear(x, torch.cat(weights), self.bias)

    @staticmethod
    def _directed(weight: Tensor, pair: DoRAFactors | None) -> Tensor:
        if pair is None:
            return weight
        direction = weight + pair.B @ pair.A
        return direction * (pair.magnitude / torch.linalg.vector_norm(direction, dim=0))

    @torch.no_grad()
    def measure(self) -> None:
        """Set the magnitudes to the lengths of the frozen weight's columns: the adapted layer begins unchanged."""
        adapters = self.adapters()
        for part, rows in zip(self.parts, self.weight.split(self.width), strict=True):
            if part in adapters:
                adapters[part].magnitude.copy_(torch.linalg.vector_norm(rows.double(), dim=0))


class Gate(AdapterModule):
    """Mixing weights of an attention's experts, whatever the input: softmax(sigmoid(theta)) (MoLE).

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
    """W x + b + sum_e g_e B_e A_e x (Wu et al. 2024); the gate g is shared by the layers of an attention."""

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

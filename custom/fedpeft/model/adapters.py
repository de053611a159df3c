"""Adapters as modules of their own, under the linear layer that they adapt.

An adapted layer keeps its own parameter paths (``...attn.qkv.weight``), so published checkpoints load unchanged; the
adapter's are below it (``...attn.qkv.lora.q.A``). A new kind of adapter is one module and one entry in ``ADAPTERS``.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from fedpeft.spec.methods import Adapter


class LowRank(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        """Return x A^T B^T, (..., inputs) -> (..., outputs)."""
        return nn.functional.linear(nn.functional.linear(x, self.A), self.B)


class LoRALinear(nn.Linear):
    """A linear layer W x + b with low-rank updates on all or on some parts of its output.

    Args:
        layer: the layer to adapt; its weight and bias become this module's, unchanged.
        adapter: the row that says which parts of a fused output are adapted.
        rank: the updates' rank.

    Raises:
        ValueError: the output cannot be split into the row's parts.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter, rank: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.parts = adapter.of
        if adapter.of and layer.out_features % len(adapter.of):
            raise ValueError(f"an output of {layer.out_features} features cannot be split into {adapter.of}")
        if adapter.slots:
            width = layer.out_features // len(adapter.of)
            self.lora = nn.ModuleDict({slot: LowRank(layer.in_features, width, rank) for slot in adapter.slots})
        else:
            self.lora = LowRank(layer.in_features, layer.out_features, rank)

    def forward(self, x: Tensor) -> Tensor:
        """W x + b + B A x, (..., in_features) -> (..., out_features)."""
        y = super().forward(x)
        if isinstance(self.lora, LowRank):
            return y + self.lora(x)
        width = self.out_features // len(self.parts)
        updates = [
            self.lora[part](x) if part in self.lora else y.new_zeros(()).expand(*y.shape[:-1], width)
            for part in self.parts
        ]
        return y + torch.cat(updates, dim=-1)


ADAPTERS: dict[str, Callable[[nn.Linear, Adapter, int], nn.Module]] = {"lora": LoRALinear}


def adapt(model: nn.Module, adapters: tuple[Adapter, ...], rank: int) -> None:
    """Put the rows' adapters into ``model``, in place.

    Raises:
        ValueError: a row matches no linear layer of the model, so the method would silently train less than it says.
    """
    for adapter in adapters:
        layers = [
            (path, layer)
            for path, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and fnmatchcase(path, adapter.layer)
        ]
        if not layers:
            raise ValueError(f"no linear layer matches {adapter.layer!r}; check the adapter's row against the backbone")
        for path, layer in layers:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, ADAPTERS[adapter.kind](layer, adapter, rank))

"""Base classes of adapters: modules that no checkpoint has, and linear layers whose output an adapter changes."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fedpeft.config.methods import Adapter
from fedpeft.models.initial_values import ZEROS, Initial


class AdapterModule(nn.Module):
    """Base of every module that an adapter adds; all modules below it belong to the adapter too."""

    def initial(self, leaf: str) -> Initial:
        """How the parameter ``leaf`` of this module starts; zeros unless a kind says otherwise."""
        return ZEROS


@runtime_checkable
class ReadsFrozenWeights(Protocol):
    """A module that can set its tensors only after the frozen weights are in place."""

    def read_frozen_weights(self) -> None:
        """Set, in place, what depends on the frozen weights; called once, before any training."""


class ZeroInitLinear(nn.Linear):
    """A linear layer that is zero at the start: a residual branch that ends in one begins as the identity."""


class AdaptedLinear(nn.Linear):
    """A linear layer W x + b of which all or some parts of the output are adapted.

    It keeps the layer's own parameter paths (``...attn.qkv.weight``), so published checkpoints load unchanged.

    Args:
        layer: the layer to adapt; its weight and bias become this module's, unchanged.
        adapter: the entry that says which parts of a fused output are adapted.
        make: makes the adapter of one part from the features of its input and output; None if the layers share one.

    Attributes:
        lora: one adapter, or for a fused output one for each adapted part by its name.
        width: features of one part of the output.

    Raises:
        ValueError: the output cannot be split into the entry's parts, or the layer is adapted already.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter, make: Callable[[int, int], nn.Module] | None) -> None:
        if isinstance(layer, AdaptedLinear):
            raise ValueError(f"{adapter.layer!r} matches a layer that has an adapter; give each layer one")
        # This copies the hooks too, through which another adapter may change the layer's output.
        self.__dict__.update(layer.__dict__)
        self.parts = adapter.of or ("",)
        self.slots = adapter.slots or ("",)
        if layer.out_features % len(self.parts):
            raise ValueError(
                f'an output of {layer.out_features} features cannot be split into {adapter.of}; correct "of" in the '
                f"method's adapter"
            )
        self.width = layer.out_features // len(self.parts)
        if make is None:
            return
        made = {slot: make(layer.in_features, self.width) for slot in self.slots}
        self.lora = nn.ModuleDict(made) if adapter.slots else made[""]

    def adapters(self) -> dict[str, Any]:
        """The adapter of each adapted part, in the order of the slots."""
        return dict(self.lora.items()) if isinstance(self.lora, nn.ModuleDict) else {"": self.lora}

    def add(self, y: Tensor, updates: dict[str, Tensor]) -> Tensor:
        """Add the parts' updates, each (..., width), to the layer's own output y (..., out_features)."""
        if len(self.parts) == 1:
            return y + updates[""]
        nothing = y.new_zeros(()).expand(*y.shape[:-1], self.width)
        return y + torch.cat([updates.get(part, nothing) for part in self.parts], dim=-1)


def adapter_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the parameter paths that adapters have added."""
    return tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, AdapterModule))


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` in the place of the model's module at ``path``."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)

"""IA3: learned scales of an attention's keys and values and of an MLP's hidden activations (Liu et al. 2022)."""

from typing import Any

import torch
from torch import Tensor, nn

from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import AdapterModule
from fedpeft.models.adapters.registry import register_adapter
from fedpeft.models.initial_values import ONES, Initial
from fedpeft.models.sam.parts import Block


class Scales(AdapterModule):
    """One factor per feature: x -> l * x.

    Args:
        features: how many features of x are scaled, from the end.
        names: names of the equally wide parts of these features; each part gets a parameter of its name.

    Attributes:
        <name>: (features / number of names,), ones at the start: an adapted model begins as the foundation model.
    """

    def __init__(self, features: int, names: tuple[str, ...]) -> None:
        super().__init__()
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.empty(features // len(names))))

    def initial(self, leaf: str) -> Initial:
        """How a scale starts."""
        return ONES

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) -> the same shape; features before the scaled ones stay as they are."""
        scales = torch.cat(list(self.parameters())).to(x.dtype)
        unscaled = scales.new_ones(x.shape[-1] - len(scales))
        return x * torch.cat([unscaled, scales])

    def on_output(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """``forward`` as a forward hook, on a module's output."""
        return self(output)


def add_scales(block: Block) -> None:
    """Add scales to a block of either encoder: of k and v, which follow q in the fused projection, and of the MLP.

    The MLP's scales act on the output of its activation function, as in the paper. Before the activation they would
    compute another function; on the columns of the second layer's weight they would compute the same one.

    Hooks work beside other adapters on these layers.
    """
    of_attention = Scales(2 * block.attn.qkv.in_features, ("k", "v"))
    of_mlp = Scales(block.mlp.lin2.in_features, ("hidden",))
    block.ia3 = nn.ModuleDict({"attn": of_attention, "mlp": of_mlp})
    # A copy of the model also copies bound methods; closures would keep the original's scales.
    block.attn.qkv.register_forward_hook(of_attention.on_output)
    block.mlp.act.register_forward_hook(of_mlp.on_output)


@register_adapter("ia3", layer=Block)
def put_ia3(model: nn.Module, layers: dict[str, Block], adapter: Adapter, options: Any, run: Run) -> None:
    """Add scales to each of the blocks."""
    for block in layers.values():
        add_scales(block)

"""Bottleneck adapters after attention and MLP of a block (Houlsby et al. 2019)."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import gelu

from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import AdapterModule, ZeroInitLinear
from fedpeft.models.adapters.registry import register_adapter
from fedpeft.models.sam.parts import Block


class Bottleneck(AdapterModule):
    """x + up(GELU(down(x))).

    Args:
        dim: channels of the encoder.
        width: channels of the bottleneck.

    Attributes:
        up: zero at the start, so that an adapted model begins as the foundation model (the authors' begins near it).
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, width)
        self.up = ZeroInitLinear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> the same shape."""
        return x + self.up(gelu(self.down(x)))

    def on_output(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """``forward`` as a forward hook, on a module's output."""
        return self(output)


def add_bottlenecks(block: Block, dim: int, width: int) -> None:
    """Add bottlenecks to a block of either encoder, before its two residual additions.

    Hooks work with any classes of block, attention and MLP, and beside other adapters on these.
    """
    bottlenecks = {part: Bottleneck(dim, width) for part in ("attn", "mlp")}
    block.bottlenecks = nn.ModuleDict(bottlenecks)
    for part, bottleneck in bottlenecks.items():
        # A copy of the model also copies a bound method; a closure would keep the original's bottleneck.
        block.get_submodule(part).register_forward_hook(bottleneck.on_output)


@register_adapter("bottlenecks", layer=Block)
def put_bottlenecks(model: nn.Module, layers: dict[str, Block], adapter: Adapter, options: Any, run: Run) -> None:
    """Add bottlenecks to each of the blocks."""
    for block in layers.values():
        add_bottlenecks(block, run.backbone.dim, options.width)

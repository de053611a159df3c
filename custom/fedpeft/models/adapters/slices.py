"""MA-SAM's 3-D adapters: neighbouring slices of a stack exchange features (Chen et al. 2024)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad

from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import AdapterModule, ZeroInitLinear, replace_module
from fedpeft.models.adapters.registry import register_adapter
from fedpeft.models.sam.parts import Block

# As the authors published them: the encoder's own epsilon, and this width for SAM of every size.
EPSILON, WIDTH = 1e-6, 384


class SliceMixer(AdapterModule):
    """x + up(GELU(conv(down(LN(x))))), the convolution along the slices of a stack, kernel 3, edges padded with zeros.

    Args:
        dim: channels of the encoder; half as many inside, at most ``WIDTH``.
        stack: slices in a stack.

    Attributes:
        up: zero at the start, so that an adapted model begins as the foundation model (the authors' begins at random).
    """

    def __init__(self, dim: int, stack: int) -> None:
        super().__init__()
        self.stack = stack
        width = min(dim // 2, WIDTH)
        self.norm = nn.LayerNorm(dim, eps=EPSILON)
        self.down = nn.Linear(dim, width, bias=False)
        self.conv = nn.Conv3d(width, width, kernel_size=(3, 1, 1))
        self.up = ZeroInitLinear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the slices of each stack.

        Args:
            x: (stacks * stack, h, w, dim); the slices of a stack follow one another.

        Returns:
            The same shape.

        Raises:
            ValueError: the slices do not make whole stacks.
        """
        if x.shape[0] % self.stack:
            raise ValueError(f"{x.shape[0]} slices, expected whole stacks of {self.stack}; pad the last one")
        hidden = self.down(self.norm(x)).unflatten(0, (-1, self.stack))
        return x + self.up(gelu(self._along_slices(hidden).flatten(0, 1)))

    def _along_slices(self, x: Tensor) -> Tensor:
        """The convolution as one product over (stacks, stack, h, w, channels): the kernel is 1 x 1 in the plane."""
        padded = pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
        neighbours = torch.cat([padded[:, :-2], x, padded[:, 2:]], dim=-1)
        # (out, in, 3, 1, 1) -> (out, 3 * in), in the order of the neighbours.
        weight = self.conv.weight[..., 0, 0].permute(0, 2, 1).flatten(1)
        return linear(neighbours, weight, self.conv.bias)


class MixingBlock(Block):
    """A block of SAM's encoder with a mixer before its attention and one before its MLP.

    Args:
        block: the block; its parts keep their names.
        dim: channels.
        stack: slices in a stack.
    """

    def __init__(self, block: nn.Module, dim: int, stack: int) -> None:
        self.__dict__.update(block.__dict__)
        self.slices = nn.ModuleDict({"attn": SliceMixer(dim, stack), "mlp": SliceMixer(dim, stack)})

    def forward(self, x: Tensor) -> Tensor:
        """(stacks * stack, h, w, dim) -> the same shape."""
        x = self.slices["attn"](x)
        x = x + self.attn(self.norm1(x))
        x = self.slices["mlp"](x)
        return x + self.mlp(self.norm2(x))


@register_adapter("slices", layer=Block)
def put_slices(model: nn.Module, layers: dict[str, Block], adapter: Adapter, options: Any, run: Run) -> None:
    """Let each of the blocks mix the slices of a stack."""
    for path, block in layers.items():
        replace_module(model, path, MixingBlock(block, run.backbone.dim, run.data.stack))

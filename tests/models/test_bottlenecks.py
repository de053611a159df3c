"""Bottlenecks against the formula, on blocks of either encoder."""

from copy import deepcopy

import pytest
import torch
from torch.nn.functional import gelu

from fedpeft.models.adapters.bottlenecks import add_bottlenecks
from fedpeft.models.sam.attention import GridAttention, SequenceAttention
from fedpeft.models.sam.parts import Block


def _block(kind):
    block = Block(8, 2)
    block.attn = SequenceAttention(8, 2) if kind == "vit" else GridAttention(8, 2, 7, 3 * (kind == "windows"))
    add_bottlenecks(block, 8, 3)
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return block.eval()


def _x(kind):
    shape = (2, 10, 8) if kind == "vit" else (2, 7, 7, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _narrow(bottleneck, y):
    return y + gelu(y @ bottleneck.down.weight.T + bottleneck.down.bias) @ bottleneck.up.weight.T + bottleneck.up.bias


@pytest.mark.parametrize("kind", ["vit", "global", "windows"])
def test_bottlenecks_stand_before_the_residual_additions(kind):
    adapted, x = _block(kind), _x(kind)
    plain = deepcopy(adapted)
    plain.attn._forward_hooks.clear()
    plain.mlp._forward_hooks.clear()
    # A block whose MLP answers 0 gives x + attention(x).
    plain.mlp.lin2.weight.data.zero_(), plain.mlp.lin2.bias.data.zero_()
    between = x + _narrow(adapted.bottlenecks["attn"], plain(x) - x)
    hidden = gelu(adapted.mlp.lin1(adapted.norm2(between)))
    mlp = hidden @ adapted.mlp.lin2.weight.T + adapted.mlp.lin2.bias
    torch.testing.assert_close(adapted(x), between + _narrow(adapted.bottlenecks["mlp"], mlp))


def test_a_copy_has_bottlenecks_of_its_own():
    block = _block("vit")
    copy, before = deepcopy(block), block(_x("vit"))
    copy.bottlenecks["attn"].up.weight.data.zero_()
    assert torch.equal(block(_x("vit")), before)
    assert not torch.equal(copy(_x("vit")), before)

"""Prompts against VPT written out: tokens that are concatenated, run through the blocks, and dropped."""

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import nn

from fedpeft.config.backbones import backbone
from fedpeft.config.methods import Adapter
from fedpeft.config.run import make_run
from fedpeft.models.adapters.lora import LoRALinear, LowRank
from fedpeft.models.adapters.prompts import LowRankPrompts, Prompts
from fedpeft.models.initial import build
from fedpeft.models.sam.attention import GridAttention, SequenceAttention
from fedpeft.models.sam.parts import Block, encoder

RUN = make_run("vpt_deep", "images", "vit_tiny", classes=3)
SMALL = replace(backbone("vit_tiny"), dim=8)
FUSED = Adapter("lora", "*", slots=("q", "v"), of=("q", "k", "v"))


def filled(module):
    """The module with gaussian values everywhere, in float64; small enough that attention is not all on one token."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module.eval()


def x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _vit_block():
    block = Block(8, 2)
    block.attn = SequenceAttention(8, 2)
    return block


def _sam_block(window):
    block = Block(8, 2)
    block.attn = GridAttention(8, 2, 7, window)
    return block


BLOCKS = {
    "vit": (_vit_block, (2, 10, 8)),
    "global": (lambda: _sam_block(0), (2, 7, 7, 8)),
    "windows": (lambda: _sam_block(3), (2, 7, 7, 8)),
}


def _literal_block(block, tokens, prompts):
    """Prompts and tokens through a block, of which the tokens alone are kept; every window has all prompts."""
    count, normed, size = len(prompts), block.norm1(tokens), getattr(block.attn, "window", 0)
    if size:
        normed, padded = encoder.window_partition(normed, size)
    together = torch.cat([block.norm1(prompts).expand(len(normed), -1, -1), normed.flatten(1, -2)], dim=1)
    attended = _literal_attention(block.attn, together, count, normed.shape[1:-1])[:, count:].reshape(normed.shape)
    if size:
        attended = encoder.window_unpartition(attended, size, padded, tokens.shape[1:3])
    tokens = tokens + attended
    return tokens + block.mlp(block.norm2(tokens))


def _literal_attention(attn, tokens, count, grid):
    q, k, v = attn.qkv(tokens).reshape(*tokens.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-2, -1) / sqrt(4)
    if attn.use_rel_pos:
        place = torch.cartesian_prod(*(torch.arange(side) for side in grid))
        offsets = place.unsqueeze(1) - place.unsqueeze(0) + torch.tensor(grid) - 1
        relative = attn.rel_pos_h[offsets[..., 0]] + attn.rel_pos_w[offsets[..., 1]]
        logits[:, :, count:, count:] += torch.einsum("bhqd,qkd->bhqk", q[:, :, count:], relative)
    return attn.proj((logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
def test_prompts_as_keys_and_values_are_vpt_deep(kind, adapted):
    made, shape = BLOCKS[kind]
    block = made()
    if adapted:
        block.attn.qkv = LoRALinear(block.attn.qkv, FUSED, lambda n, m: LowRank(n, m, 2))
    block.prompts = Prompts(3, SMALL)
    block = filled(block)
    plain, expected = block(x(*shape)), _literal_block(block, x(*shape), block.prompts.P)
    block.attn.prompted = (block.norm1, block.prompts)
    torch.testing.assert_close(block(x(*shape)), expected)
    assert (expected - plain).abs().max() > 0.01


def test_prompts_keep_the_names_of_all_else():
    prompted, plain = build(RUN, None), build(RUN.with_(method="linear_probe"), None)
    more = set(prompted.state_dict()) - set(plain.state_dict())
    assert more == {f"image_encoder.blocks.{number}.prompts.P" for number in range(6)}
    assert set(plain.state_dict()) < set(prompted.state_dict())


def test_shallow_prompts_stand_behind_the_class_token_and_are_carried_on():
    model = build(RUN.with_(method="vpt_shallow"), None)
    assert model.image_encoder.prompts.P.shape == (10, 128)
    plain = build(RUN.with_(method="linear_probe"), None).image_encoder
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = plain.tokens(images)
    tokens = torch.cat([tokens[:, :1], model.image_encoder.prompts.P.expand(2, -1, -1), tokens[:, 1:]], dim=1)
    for block in plain.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(model.features(images), plain.norm(tokens[:, 0]))
    assert not torch.allclose(model.features(images), plain(images), atol=1e-4)


def test_shallow_prompts_need_a_sequence():
    with pytest.raises(ValueError, match="vpt_shallow cannot adapt sam_tiny: .*vpt_deep"):
        build(RUN.with_(method="vpt_shallow", backbone="sam_tiny"), None)


@pytest.mark.parametrize(("method", "rank"), [("vpt_shallow", 0), ("vpt_deep", 0), ("dvpt", 1), ("dvpt", 4)])
def test_prompts_begin_with_the_variance_of_vpts(method, rank):
    model = build(RUN.with_(method=method, prompts=64, rank=rank), None)
    tokens = torch.stack([module() for module in model.modules() if isinstance(module, Prompts | LowRankPrompts)])
    # Uniform within +-b has the variance b^2 / 3.
    bound = sqrt(6 / (3 * 8 * 8 + 128))
    assert tokens.shape[1:] == (64, 128)
    assert abs(tokens.square().mean() / (bound**2 / 3) - 1) < 0.15 and abs(tokens.mean()) < 0.01


def test_low_rank_prompts_are_a_product_of_balanced_factors():
    prompts = LowRankPrompts(10, 4, backbone("vit_tiny"))
    prompts.A.data, prompts.B.data = x(4, 128), x(10, 4)
    torch.testing.assert_close(prompts(), x(10, 4) @ x(4, 128))
    norms = [prompts.deviation(leaf) * sqrt(getattr(prompts, leaf).numel()) for leaf in "AB"]
    assert norms[0] == pytest.approx(norms[1])


def test_a_rank_above_the_number_of_prompts_is_refused():
    with pytest.raises(ValueError, match="rank 11 of 10 prompts of width 128: expected at most 10"):
        build(RUN.with_(method="dvpt", rank=11), None)


def test_lora_then_prompts_adapt_what_the_prompts_become():
    model = build(RUN.with_(method="lora_vpt"), None)
    attention = model.image_encoder.blocks[0].attn
    assert attention.prompted and isinstance(attention.qkv, LoRALinear)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = model.features(images)
    nn.init.normal_(attention.qkv.lora["v"].B, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(model.features(images), before, atol=1e-4)

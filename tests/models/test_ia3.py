"""IA3 against its formula: keys, values and hidden activations are scaled, by ones at the start."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from fedpeft.config.methods import METHODS
from fedpeft.config.run import make_run
from fedpeft.models.adapters.base import adapter_prefixes
from fedpeft.models.adapters.ia3 import add_scales
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.models.payload import counts, trainable
from fedpeft.models.sam.attention import GridAttention, SequenceAttention
from fedpeft.models.sam.parts import Block

RUNS = {
    "segmenting SAM": ("phantom", "sam_tiny"),
    "classifying SAM": ("images", "sam_tiny"),
    "ViT": ("images", "vit_tiny"),
}


@pytest.fixture(params=RUNS)
def run(request):
    dataset, backbone = RUNS[request.param]
    return make_run("ia3", dataset, backbone, classes=3, image_size=32)


def images(run):
    channels = 1 if run.task.name == "segmentation" else 3
    return torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))


def block_of(kind):
    """A block of either encoder with Gaussian values everywhere, and its input, in float64."""
    block = Block(8, 2)
    block.attn = SequenceAttention(8, 2) if kind == "vit" else GridAttention(8, 2, 7, 3 * (kind == "windows"))
    add_scales(block)
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    shape = (2, 10, 8) if kind == "vit" else (2, 7, 7, 8)
    return block.eval(), torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["vit", "global", "windows"])
def test_a_block_computes_with_scaled_keys_values_and_activations(kind):
    adapted, x = block_of(kind)
    k, v, hidden = adapted.ia3["attn"].k, adapted.ia3["attn"].v, adapted.ia3["mlp"].hidden
    assert (k.shape, v.shape, hidden.shape) == ((8,), (8,), (32,))
    plain = deepcopy(adapted)
    plain.attn.qkv._forward_hooks.clear()
    plain.mlp.act._forward_hooks.clear()
    # Scaled keys and values are those of a projection whose weight and bias are scaled, line by line.
    lines = torch.cat([torch.ones(8, dtype=torch.float64), k, v]).detach()
    plain.attn.qkv.weight.data *= lines[:, None]
    plain.attn.qkv.bias.data *= lines
    between = x + plain.attn(plain.norm1(x))
    scaled = hidden * gelu(adapted.mlp.lin1(adapted.norm2(between)))
    torch.testing.assert_close(adapted(x), between + adapted.mlp.lin2(scaled))
    # Which is the same as scaling the columns of the MLP's second layer.
    plain.mlp.lin2.weight.data *= hidden.detach()
    torch.testing.assert_close(adapted(x), plain(x))


def test_a_copy_has_scales_of_its_own():
    block, x = block_of("vit")
    copy, before = deepcopy(block), block(x)
    copy.ia3["attn"].v.data.zero_()
    assert torch.equal(block(x), before) and not torch.equal(copy(x), before)


def test_scales_are_one_at_the_start_and_the_model_is_the_foundation_model_to_the_last_bit(run):
    adapted = build(run, shipped(run.backbone)).eval()
    other = {"segmentation": "pdec_ft", "classification": "linear_probe"}[run.task.name]
    plain = build(run.with_(method=other), shipped(run.backbone)).eval()
    scales = {path: p for path, p in trainable(adapted).items() if ".ia3." in path}
    assert scales and all(torch.equal(p, torch.ones_like(p)) for p in scales.values())
    with torch.no_grad():
        assert torch.equal(adapted(images(run)), plain(images(run)))


def test_counts_by_formula_and_paths(run):
    model = build(run, None)
    scales = {path: p for path, p in trainable(model).items() if ".ia3." in path}
    dim, depth = run.backbone.dim, run.backbone.depth
    # k and v of an attention, the MLP's 4 dim activations.
    assert sum(p.numel() for p in scales.values()) == depth * (2 * dim + 4 * dim)
    first = [path for path in scales if ".blocks.0." in path]
    assert first == [f"image_encoder.blocks.0.ia3.{leaf}" for leaf in ("attn.k", "attn.v", "mlp.hidden")]
    others = sum(p.numel() for path, p in trainable(model).items() if path not in scales)
    assert counts(run)[0] == others + depth * 6 * dim
    assert all(path.startswith(adapter_prefixes(model)) for path in scales)
    assert {METHODS["ia3"].rule_of(path) for path in scales} == {"mean"}


def test_every_scale_gets_a_gradient(run):
    model = build(run, None).train()
    if run.task.name == "classification":
        nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    model(images(run))[:, 0].sum().backward()
    for path, parameter in model.named_parameters():
        assert (parameter.grad is not None) == METHODS["ia3"].trains_tensor(path) or "hypernetworks" in path, path
        assert ".ia3." not in path or parameter.grad.abs().min() > 0, path


def test_bfloat16_stays_bfloat16():
    block, x = block_of("vit")
    block.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert block.attn.qkv(x.float()).dtype == torch.bfloat16

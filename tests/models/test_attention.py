"""Attention, decoder and LoRA against segment_anything's own classes on the same tensors: masks, loss, gradients."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fedpeft.config.adapters import LoRA
from fedpeft.config.methods import METHODS, Adapter
from fedpeft.config.run import make_run
from fedpeft.models.adapters.lora import LoRALinear
from fedpeft.models.adapters.low_rank_sum import LowRankSum
from fedpeft.models.initial import build
from fedpeft.models.payload import trainable
from fedpeft.models.sam.attention import KEPT_TOKENS, GridAttention
from fedpeft.models.sam.parts import Attention, Block
from fedpeft.tasks.segmentation import make_loss

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from reference_step import reference_model  # noqa: E402

TINY = make_run("flap_sam", "phantom", "sam_tiny", classes=2)
SEGMENTING = [name for name, row in METHODS.items() if "segmentation" in row.tasks]
CLASSIFYING = [name for name in ("full_ft", "lora", "bitfit", "sba", "adapters") if name in METHODS]


def filled(module, scale=0.3):
    """The module with gaussian values everywhere, in float64: no adapter, position or head is zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return doubled(module)


def doubled(module):
    """The module in float64, but for SAM's encoding of the grid, which makes its own numbers in float32."""
    module.double()
    if hasattr(module, "prompt_encoder"):
        module.prompt_encoder.pe_layer.float()
    return module


def gaussian(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answers(model, images, labels, loss):
    """Logits, loss, and the gradients of all that trains."""
    logits = model(images)
    value = loss(logits, labels)
    trained = {path: tensor for path, tensor in trainable(model).items() if tensor.requires_grad}
    found = torch.autograd.grad(value, list(trained.values()), allow_unused=True)
    return logits, value, {path: grad for path, grad in zip(trained, found, strict=True) if grad is not None}


def assert_equal(model, images, labels, loss):
    model.eval()
    logits, value, gradients = answers(model, images, labels, loss)
    published_logits, published_value, published_gradients = answers(reference_model(model), images, labels, loss)
    torch.testing.assert_close(logits, published_logits)
    torch.testing.assert_close(value, published_value)
    assert gradients.keys() == published_gradients.keys() and any(grad.any() for grad in gradients.values())
    for path, gradient in gradients.items():
        torch.testing.assert_close(gradient, published_gradients[path], msg=lambda text, path=path: f"{path}: {text}")


@pytest.mark.parametrize("method", SEGMENTING)
def test_every_method_segments_as_the_published_classes(method):
    """On 32 pixels: 4 x 4 tokens."""
    run = TINY.with_(method=method, image_size=32)
    model = filled(build(run, None), scale=0.1)
    labels = torch.randint(0, 3, (5, 32, 32), generator=torch.Generator().manual_seed(0))
    assert_equal(model, gaussian(5, 1, 32, 32), labels, make_loss(run))


@pytest.mark.parametrize("method", CLASSIFYING)
def test_methods_on_sams_encoder_classify_as_the_published_classes(method):
    run = make_run(method, "images", "sam_tiny", classes=3, image_size=32)
    model = filled(build(run, None), scale=0.1)
    assert_equal(model, gaussian(3, 3, 32, 32), torch.tensor([0, 2, 1]), nn.functional.cross_entropy)


SHAPES = {"global": (7, 0), "uneven windows": (7, 3), "one window": (3, 3), "a window larger than the grid": (2, 3)}


@pytest.mark.parametrize("kept", [True, False], ids=["plain products", "appended to queries and keys"])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_computations_attend_as_sam(shape, kept, monkeypatch):
    monkeypatch.setattr("fedpeft.models.sam.attention.KEPT_TOKENS", KEPT_TOKENS if kept else 0)
    side, window = SHAPES[shape]
    ours, plain = Block(8, 2), Block(8, 2, use_rel_pos=True, window_size=window, input_size=(side, side))
    ours.attn = GridAttention(8, 2, side, window)
    filled(ours)
    plain.double().load_state_dict(ours.state_dict())
    ours_x, plain_x = (gaussian(2, side, side, 8).requires_grad_() for _ in range(2))
    torch.testing.assert_close(ours(ours_x), plain(plain_x))
    weights = gaussian(2, side, side, 8, seed=2)
    (ours(ours_x) * weights).sum().backward()
    (plain(plain_x) * weights).sum().backward()
    torch.testing.assert_close(ours_x.grad, plain_x.grad)
    for (path, mine), published in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, published.grad, msg=lambda text, path=path: f"{path}: {text}")


def test_relative_positions_matter_here():
    """Else the tests above would pass without them."""
    attention = filled(GridAttention(8, 2, 7))
    before = attention(gaussian(1, 7, 7, 8))
    nn.init.zeros_(attention.rel_pos_w)
    assert (attention(gaussian(1, 7, 7, 8)) - before).abs().max() > 0.01
    assert isinstance(attention, Attention)


def test_float32_differs_by_rounding_alone():
    model = build(TINY.with_(image_size=64), None).eval()
    for path, tensor in model.named_parameters():
        if "rel_pos" in path or path.endswith(".B"):
            nn.init.normal_(tensor, std=0.1, generator=torch.Generator().manual_seed(0))
    images = gaussian(5, 1, 64, 64).float()
    with torch.no_grad():
        ours, plain, exact = model(images), reference_model(model)(images), doubled(model)(images.double())
    assert (ours - exact).abs().max() < 2 * (plain - exact).abs().max() + 1e-6


@pytest.mark.parametrize("adapter", [Adapter(LoRA(), "*", slots=("q", "v"), of=("q", "k", "v")), Adapter(LoRA(), "*")])
@pytest.mark.parametrize("bias", [True, False])
def test_lora_in_one_function_has_the_derivative_of_its_formula(adapter, bias):
    layer = filled(LoRALinear(nn.Linear(4, 6, bias=bias), adapter, 2))
    x = gaussian(2, 3, 4).requires_grad_()
    rows = [
        weight + (layer.adapters()[part].B @ layer.adapters()[part].A if part in layer.adapters() else 0)
        for part, weight in zip(layer.parts, layer.weight.split(layer.width), strict=True)
    ]
    torch.testing.assert_close(layer(x), nn.functional.linear(x, torch.cat(rows), layer.bias))
    tensors = [x, layer.weight, layer.bias, (0, 4) if adapter.slots else (0,)]
    factors = [getattr(pair, leaf) for leaf in "AB" for pair in layer.adapters().values()]
    assert torch.autograd.gradcheck(LowRankSum.apply, (*tensors, *factors))


def test_nothing_is_kept_for_blocks_before_the_first_trained_one():
    """A decoder that trains alone: the frozen encoder's output needs no gradient."""
    model = build(TINY.with_(method="dec_ft", image_size=32), None)
    assert not model.image_encoder(torch.zeros(1, 3, 32, 32)).requires_grad
    model = build(TINY.with_(image_size=32), None)
    assert not model.image_encoder.patch_embed(torch.zeros(1, 3, 32, 32)).requires_grad

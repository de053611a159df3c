"""LoRA's options against its formula, and LoRA on an MLP's layers in both encoders."""

import pytest
import torch
from torch import nn

from fedpeft.config.adapters import LoRA
from fedpeft.config.methods import METHODS, Adapter
from fedpeft.config.run import make_run
from fedpeft.models.adapters.lora import LoRALinear
from fedpeft.models.initial import build
from fedpeft.models.payload import counts, trainable

FUSED = Adapter(LoRA(), "*", slots=("q", "v"), of=("q", "k", "v"))
PLAIN = Adapter(LoRA(), "*")
X = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def made(adapter=FUSED, rank=2, **options):
    """An adapted layer with Gaussian values everywhere, in float64."""
    layer = LoRALinear(nn.Linear(6, 12), adapter, rank, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return layer.eval()


def by_formula(layer, scale, x=X):
    """W x + b + s B A x, part by part."""
    updates = []
    for part, weight in zip(layer.parts, layer.weight.split(layer.width), strict=True):
        pair = layer.adapters().get(part)
        updates.append(weight if pair is None else weight + scale * pair.B @ pair.A)
    return x @ torch.cat(updates).T + layer.bias


@pytest.mark.parametrize("adapter", [FUSED, PLAIN], ids=["fused", "plain"])
@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({}, 1.0),
        ({"rslora": True}, 1.0),
        ({"alpha": 16.0}, 4.0),
        ({"alpha": 16.0, "rslora": True}, 8.0),
        ({"alpha": 4.0}, 1.0),
    ],
)
def test_the_update_is_scaled_by_alpha_over_the_rank_or_its_root(adapter, options, scale):
    layer = made(adapter, rank=4, **options)
    torch.testing.assert_close(layer(X), by_formula(layer, scale))
    expected = by_formula(layer, scale).float()
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(X.float()).float(), expected, rtol=0.05, atol=0.5)


def test_gradients_go_through_the_scale():
    layer, plain = made(alpha=6.0), made(alpha=6.0)
    layer(X).square().sum().backward()
    by_formula(plain, 3.0).square().sum().backward()
    for (path, mine), other in zip(layer.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, msg=lambda text, path=path: f"{path}: {text}")


def test_without_alpha_nothing_is_multiplied():
    layer = made()
    factors = list(layer.adapters().values())
    assert all(layer._scaled(pair.B) is pair.B for pair in factors)


def test_dropout_acts_on_the_updates_input_in_training_alone():
    layer = made(dropout=0.5)
    assert torch.equal(layer(X), layer(X))
    torch.testing.assert_close(layer(X), by_formula(layer, 1.0))
    layer.train()
    torch.manual_seed(0)
    found = layer(X)
    torch.manual_seed(0)
    dropped = nn.functional.dropout(X, 0.5)
    frozen = nn.Linear.forward(layer, X)
    updates = by_formula(layer, 1.0, dropped) - (dropped @ layer.weight.T + layer.bias)
    torch.testing.assert_close(found, frozen + updates)
    # k has no adapter, so nothing of it is dropped.
    assert torch.equal(found[..., 4:8], frozen[..., 4:8])


def test_no_dropout_asks_for_no_random_numbers():
    layer = made(dropout=0.0).train()
    before = torch.get_rng_state()
    layer(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_layer_is_adapted_once():
    with pytest.raises(ValueError, match="'\\*' matches a layer that has an adapter; give each layer one"):
        LoRALinear(made(), FUSED, 2)


MLP = METHODS["lora_mlp"]
RUNS = {
    "segmenting SAM": ("phantom", "sam_tiny"),
    "classifying SAM": ("images", "sam_tiny"),
    "ViT": ("images", "vit_tiny"),
}


@pytest.mark.parametrize("place", RUNS)
def test_lora_on_the_mlp_adds_products_that_learn(place):
    dataset, backbone = RUNS[place]
    run = make_run(MLP.name, dataset, backbone, classes=3, image_size=32)
    dim, depth = run.backbone.dim, run.backbone.depth
    lora = {path: p for path, p in trainable(build(run, None)).items() if ".lora." in path}
    # q and v, then the layers to and from 4 dim.
    expected = depth * run.option("rank") * (2 * (dim + dim) + 2 * (dim + 4 * dim))
    assert sum(p.numel() for p in lora.values()) == expected < counts(run)[0]
    model = build(run, None).train()
    channels = 1 if dataset == "phantom" else 3
    optimiser = torch.optim.SGD(trainable(model).values(), lr=1.0)
    # B is zero at the start, the head as well: only then does everything receive a gradient.
    for path, parameter in trainable(model).items():
        if path.endswith(".B") or path.startswith("head."):
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    model(torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(0)))[:, 0].sum().backward()
    optimiser.step()
    assert all(p.grad.any() for path, p in trainable(model).items() if ".lora." in path)
    assert {MLP.rule_of(path) for path in lora} == {"product"}

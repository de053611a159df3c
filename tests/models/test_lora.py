"""LoRA's options against its formula, and LoRA on an MLP's layers in both encoders."""

import pytest
import torch
from torch import nn

from fedpeft.config.adapters import LoRA, RandomLoRA
from fedpeft.config.methods import METHODS, Adapter
from fedpeft.config.run import make_run
from fedpeft.models.adapters.lora import LoRALinear, RandomLowRank
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


@pytest.mark.parametrize("method", ["flap_sam", "lora_ft", "lora_dec_ft"])
def test_a_random_b_starts_as_torchs_linear_layers_and_nothing_else_changes(method):
    run = make_run(method, "phantom", "sam_tiny", classes=2, image_size=32)
    plain, other = (build(made, None) for made in (run, run.with_(method=f"{method}_random_b")))
    assert trainable(plain).keys() == trainable(other).keys()
    theirs = other.state_dict()
    for path, tensor in plain.state_dict().items():
        if ".lora." not in path:
            assert torch.equal(tensor, theirs[path]), path
            continue
        bound = tensor.shape[1] ** -0.5
        # Uniform: nearly all of the interval is used, and the variance is a third of its square.
        assert 0.9 * bound < theirs[path].abs().max() <= bound
        assert theirs[path].var() == pytest.approx(bound**2 / 3, rel=0.3)
        assert not path.endswith(".B") or (theirs[path].any() and not tensor.any())
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (plain(images) - other(images)).abs().max() > 1e-3
    assert {run.with_(method=f"{method}_random_b").method.rule_of(p) for p in theirs if ".lora." in p} == {"product"}


def test_a_random_b_of_the_large_backbone_has_a_spectral_norm_of_about_2():
    pair, norms = RandomLowRank(768, 768, 32), []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        a, b = (pair.initial(leaf).sample(pair.get_parameter(leaf).shape, generator) for leaf in "AB")
        norms.append(torch.linalg.matrix_norm(b @ a, 2).item())
    assert norms == pytest.approx([2.1] * 4, abs=0.15)


def test_a_random_b_has_loras_options_and_adds_none():
    assert RandomLoRA.model_fields.keys() == LoRA.model_fields.keys()
    run = make_run("flap_sam_random_b", "phantom", "sam_tiny", classes=2, rank=3, alpha=6.0)
    layer = build(run, None).image_encoder.blocks[0].attn.qkv
    assert layer.lora.q.A.shape[0] == 3 and layer.scale == 2


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

"""The adapters' mathematics, against formulas written out here; what is shared has one path."""

import pytest
import torch
from torch import nn

from fedpeft.config.adapters import LoRA
from fedpeft.config.methods import METHODS, Adapter
from fedpeft.config.run import make_run
from fedpeft.models.adapters.base import AdapterModule
from fedpeft.models.adapters.dora import DoRALinear
from fedpeft.models.adapters.fact import FacTLinear, TensorTrain, Tucker
from fedpeft.models.adapters.mole import Gate, MoLELinear
from fedpeft.models.adapters.slices import MixingBlock, SliceMixer
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.models.payload import trainable
from fedpeft.models.sam.attention import GridAttention
from fedpeft.models.sam.parts import Block

TINY = make_run("flap_sam", "phantom", "sam_tiny", classes=2)
FUSED = Adapter(LoRA(), "*", slots=("q", "v"), of=("q", "k", "v"))
PLAIN = Adapter(LoRA(), "*")
ADAPTING = [name for name, row in METHODS.items() if "segmentation" in row.tasks and row.adapters and not row.stages]
# The published code of FLAP-SAM starts with a product that is not zero.
RANDOM = [name for name in ADAPTING if any(item.kind == "lora_random_b" for item in METHODS[name].adapters)]


def filled(module):
    """The module with gaussian values everywhere, in float64."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module.eval()


def x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("method", [name for name in ADAPTING if name not in RANDOM])
def test_an_adapted_model_begins_as_the_foundation_model(method):
    images = torch.rand(5, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    weights = shipped(TINY.backbone)
    adapted, plain = (build(TINY.with_(method=name), weights).eval() for name in (method, "pdec_ft"))
    with torch.no_grad():
        torch.testing.assert_close(adapted(images), plain(images), rtol=1e-5, atol=1e-5)


def test_three_methods_begin_elsewhere():
    """``tests/models/test_lora.py`` says where."""
    assert RANDOM == ["flap_sam_random_b", "lora_ft_random_b", "lora_dec_ft_random_b"]


@pytest.mark.parametrize(("adapter", "width"), [(FUSED, 4), (PLAIN, 12)])
def test_dora_scales_every_column_of_the_updated_weight(adapter, width):
    layer = filled(DoRALinear(nn.Linear(6, 12), adapter, 2))
    rows = []
    for part, weight in zip(adapter.of or ("",), layer.weight.split(width), strict=True):
        if part in layer.adapters():
            pair = layer.adapters()[part]
            updated = weight + pair.B @ pair.A
            weight = torch.stack([pair.magnitude[j] * updated[:, j] / updated[:, j].norm() for j in range(6)], dim=1)
        rows.append(weight)
    expected = x(7, 6) @ torch.cat(rows).T + layer.bias
    torch.testing.assert_close(layer(x(7, 6)), expected)


def test_doras_magnitudes_start_as_the_columns_lengths_and_the_gradient_goes_through_the_norm():
    layer = filled(DoRALinear(nn.Linear(6, 12), FUSED, 2))
    layer.read_frozen_weights()
    pair = layer.adapters()["v"]
    torch.testing.assert_close(pair.magnitude, layer.weight[8:].norm(dim=0))
    layer(x(7, 6)).square().sum().backward()
    # A longer column in its own direction is normalised away: the gradient of W + BA is orthogonal to it.
    direction = (layer.weight[8:] + pair.B @ pair.A).detach().requires_grad_()
    weight = direction * (pair.magnitude.detach() / direction.norm(dim=0))
    (x(7, 6) @ weight.T + layer.bias[8:]).square().sum().backward()
    assert (direction.grad * direction).sum(dim=0).abs().max() < 1e-9
    torch.testing.assert_close(pair.B.grad, direction.grad @ pair.A.T)


@pytest.mark.parametrize("adapter", [FUSED, PLAIN])
def test_mole_adds_the_gated_sum_of_its_experts(adapter):
    gate = filled(Gate(3))
    layer = filled(MoLELinear(nn.Linear(6, 12), adapter, 2, gate))
    weights = torch.softmax(1 / (1 + torch.exp(-gate.theta)), dim=0)
    updates = {
        part: sum(g * x(5, 6) @ (e.B @ e.A).T for g, e in zip(weights, experts, strict=True))
        for part, experts in layer.adapters().items()
    }
    columns = [updates.get(part, torch.zeros(5, 4, dtype=torch.float64)) for part in adapter.of or ("",)]
    torch.testing.assert_close(layer(x(5, 6)), x(5, 6) @ layer.weight.T + layer.bias + torch.cat(columns, dim=-1))


def test_q_and_v_of_an_attention_share_one_gate():
    gates = [path for path in trainable(build(TINY.with_(method="mole"), None)) if path.endswith("gate.theta")]
    assert len(gates) == len(set(gates)) == 4 + 7
    model = build(TINY.with_(method="mole"), None)
    attention = model.mask_decoder.transformer.final_attn_token_to_image
    assert attention.q_proj._gate[0] is attention.v_proj._gate[0] is attention.gate


@pytest.mark.parametrize("form", [TensorTrain, Tucker])
def test_fact_adds_its_slots_product(form):
    fact = filled(form(6, 4, rank=3, slots=4))
    layers = [filled(FacTLinear(nn.Linear(6, 12), FUSED, fact, first)) for first in (0, 2)]
    if form is TensorTrain:
        cores = fact.S
    else:
        cores = torch.einsum("abk,kl->lab", fact.C, fact.P)
    for number, layer in enumerate(layers):
        q, v = (x(5, 6) @ (fact.V @ cores[2 * number + index] @ fact.U).T for index in (0, 1))
        expected = x(5, 6) @ layer.weight.T + layer.bias + torch.cat([q, torch.zeros_like(q), v], dim=-1)
        torch.testing.assert_close(layer(x(5, 6)), expected)


def test_facts_bases_are_shared_by_all_layers_and_have_one_path():
    model = build(TINY.with_(method="ma_sam"), None)
    paths = [path for path in trainable(model) if "fact" in path]
    assert paths == ["image_encoder.fact.U", "image_encoder.fact.V", "image_encoder.fact.S"]
    assert all(block.attn.qkv._fact[0] is model.image_encoder.fact for block in model.image_encoder.blocks)
    assert [block.attn.qkv._first for block in model.image_encoder.blocks] == [0, 2, 4, 6]


def test_dropout_is_of_the_training_alone():
    fact = filled(TensorTrain(6, 4, rank=3, slots=2))
    layer = filled(FacTLinear(nn.Linear(6, 12), FUSED, fact, 0))
    assert torch.equal(layer(x(50, 6)), layer(x(50, 6)))
    layer.train()
    assert not torch.equal(layer(x(50, 6)), layer(x(50, 6)))


def test_a_mixer_is_the_published_convolution_along_the_stack():
    mixer = filled(SliceMixer(8, stack=5))
    stacks = x(10, 2, 3, 8)
    hidden = mixer.down(mixer.norm(stacks)).reshape(2, 5, 2, 3, 4).permute(0, 4, 1, 2, 3)
    convolved = nn.functional.conv3d(hidden, mixer.conv.weight, mixer.conv.bias, padding=(1, 0, 0))
    expected = stacks + mixer.up(nn.functional.gelu(convolved).permute(0, 2, 3, 4, 1).reshape(10, 2, 3, 4))
    torch.testing.assert_close(mixer(stacks), expected)


def test_a_mixer_refuses_slices_that_make_no_whole_stack():
    with pytest.raises(ValueError, match="7 slices, expected whole stacks of 5"):
        SliceMixer(8, stack=5)(torch.zeros(7, 2, 2, 8))


def test_ma_sam_mixes_the_slices_of_a_stack_and_never_two_stacks():
    model = build(TINY.with_(method="ma_sam"), shipped(TINY.backbone)).eval()
    for module in model.modules():
        if isinstance(module, SliceMixer):
            nn.init.normal_(module.up.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    images = torch.rand(10, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(images)
        images[2] = 0
        after = model(images)
    changed = [not torch.equal(before[k], after[k]) for k in range(10)]
    assert changed == 5 * [True] + 5 * [False]


def test_windowed_blocks_mix_as_global_ones_do():
    torch.manual_seed(0)
    block = Block(dim=8, num_heads=2)
    block.attn = GridAttention(8, 2, 7, 3)
    block = block.double().eval()
    tokens = x(5, 7, 7, 8)
    plain = block(tokens)
    mixing = MixingBlock(block, 8, stack=5).double().eval()
    nn.init.zeros_(mixing.slices["attn"].up.weight)
    nn.init.zeros_(mixing.slices["mlp"].up.weight)
    assert torch.equal(mixing(tokens), plain)


@pytest.mark.parametrize("method", ADAPTING)
def test_every_parameter_of_an_adapter_is_known_as_added(method):
    """Else the checkpoint would be searched for it."""
    run = TINY.with_(method=method)
    model, plain = build(run, None), build(run.with_(method="pdec_ft"), None)
    roots = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, AdapterModule))
    more = set(model.state_dict()) - set(plain.state_dict())
    assert more and all(path.startswith(roots) for path in more)


def test_samed_has_sams_own_decoder_and_its_logits_come_back_at_the_inputs_resolution():
    model = build(TINY.with_(method="samed", image_size=64), shipped(TINY.backbone)).eval()
    assert [type(layer).__name__ for layer in model.mask_decoder.output_upscaling] == [
        "Doubling",
        "ChannelNorm",
        "GELU",
        "Doubling",
        "GELU",
    ]
    with torch.no_grad():
        assert model(torch.rand(2, 1, 64, 64)).shape == (2, 3, 64, 64)
    first = build(TINY, shipped(TINY.backbone)).state_dict()["mask_decoder.output_upscaling.3.weight"]
    assert torch.equal(model.state_dict()["mask_decoder.output_upscaling.3.weight"], first)


def test_frozen_magnitudes_are_measured_and_do_not_travel():
    frozen, trained = (build(TINY.with_(method=name), shipped(TINY.backbone)) for name in ("dora_frozen", "dora"))
    magnitudes = {path: value for path, value in trained.state_dict().items() if path.endswith("magnitude")}
    assert magnitudes and not any(path.endswith("magnitude") for path in trainable(frozen))
    assert all(torch.equal(value, frozen.state_dict()[path]) for path, value in magnitudes.items())
    assert trainable(trained).keys() - trainable(frozen).keys() == magnitudes.keys()

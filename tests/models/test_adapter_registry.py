"""A kind of adapter is added from outside of the package; names of kinds and networks are taken once."""

import pytest
import torch
from torch import Tensor, nn

from fedpeft.config.adapters import LoRA
from fedpeft.config.methods import METHODS, Adapter, Method
from fedpeft.config.run import make_run
from fedpeft.models.adapters.base import AdapterModule
from fedpeft.models.adapters.registry import ADAPTERS, register_adapter
from fedpeft.models.initial import build
from fedpeft.models.initial_values import Constant, Initial
from fedpeft.models.networks import NETWORKS, register_network
from fedpeft.models.payload import trainable

KINDS = {
    "lora",
    "lora_random_b",
    "dora",
    "mole",
    "fact_tt",
    "fact_tk",
    "slices",
    "prompts",
    "first_prompts",
    "low_rank_prompts",
    "bottlenecks",
    "ia3",
}


class Shift(AdapterModule):
    """x + s; s starts at a half."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.empty(features))
        self.seen: Tensor | None = None

    def initial(self, leaf: str) -> Initial:
        return Constant(0.5)

    def read_frozen_weights(self) -> None:
        self.seen = self.s.detach().clone()

    def on_output(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + self.s


def test_every_kind_registers_itself():
    assert set(ADAPTERS) == KINDS
    assert {adapter.kind for entry in METHODS.values() for adapter in entry.adapters} <= KINDS


def test_a_kind_from_outside_is_put_started_and_finished(monkeypatch):
    monkeypatch.setattr(ADAPTERS, "_entries", dict(ADAPTERS))

    @register_adapter("shift", layer=nn.LayerNorm)
    def put(model, layers, adapter, options, run) -> None:
        for layer in layers.values():
            layer.shift = Shift(layer.normalized_shape[0])
            layer.register_forward_hook(layer.shift.on_output)

    entry = Method(
        "shifted",
        "Shifted",
        ("*.shift.s", "head.*"),
        "shifts",
        adapters=(Adapter("shift", "image_encoder.norm"),),
        tasks=("classification",),
    )
    monkeypatch.setitem(METHODS._entries, "shifted", entry)
    run = make_run("shifted", "images", "vit_tiny", classes=3)
    model, plain = build(run, None), build(run.with_(method="linear_probe"), None)
    assert list(trainable(model)) == ["image_encoder.norm.shift.s", "head.weight", "head.bias"]
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.features(images), plain.features(images) + 0.5)
    # Called when all tensors are in place.
    assert torch.equal(model.image_encoder.norm.shift.seen, torch.full((128,), 0.5))


def test_a_kind_that_matches_nothing_says_what_to_do(monkeypatch):
    entry = Method("nowhere", "Nowhere", ("*",), "none", adapters=(Adapter(LoRA(), "decoder.*"),))
    monkeypatch.setitem(METHODS._entries, "nowhere", entry)
    expected = r"nowhere cannot adapt sam_tiny: no Linear matches 'decoder\.\*'; check the method's adapters against"
    with pytest.raises(ValueError, match=expected):
        build(make_run("nowhere", "phantom", "sam_tiny"), None)


def test_names_are_taken_once():
    with pytest.raises(ValueError, match="kind of adapter 'lora' is registered already"):
        register_adapter("lora", layer=nn.Linear)(lambda *_: None)
    with pytest.raises(ValueError, match="network 'vit for classification' is registered already"):
        register_network("vit", "classification")(nn.Module)
    assert set(NETWORKS) == {"sam for segmentation", "sam for classification", "vit for classification"}

"""A site's own choices change nothing but the rounding: activations computed again, kernels made by torch.compile."""

import logging

import pytest
import torch

from fedpeft.config.run import make_run
from fedpeft.models.initial import build
from fedpeft.models.payload import trainable
from fedpeft.training.client.site_file import read_site_file
from fedpeft.training.engine.acceleration import checkpoint_activations, compile_forward


def answers(model, images):
    """The sum of squared outputs, and the gradients of all that trains."""
    torch.manual_seed(0)
    value = model(images).square().sum()
    return value, torch.autograd.grad(value, list(trainable(model).values()), allow_unused=True)


@pytest.mark.parametrize("method", ["flap_sam", "ma_sam"])
def test_activations_computed_again_are_the_same(method):
    """MA-SAM drops at random in training: both computations must draw the same."""
    run = make_run(method, "phantom", "sam_tiny", classes=2, image_size=32)
    images = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, thrifty = build(run, None).train(), build(run, None).train()
    for model in (plain, thrifty):
        for path, tensor in model.named_parameters():
            if path.endswith((".B", ".V")):
                torch.nn.init.normal_(tensor, std=0.1, generator=torch.Generator().manual_seed(1))
    kept = []
    checkpoint_activations(thrifty)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda x: x):
        thrifty(images)
        few, kept = sum(kept), []
        plain(images)
    assert few < sum(kept) / 2
    for mine, other in zip(answers(thrifty, images)[1], answers(plain, images)[1], strict=True):
        assert mine is other is None or torch.equal(mine, other)


def test_where_compiling_fails_the_model_runs_and_a_warning_says_why(monkeypatch, caplog):
    def broken(function):
        def call(*args):
            raise RuntimeError("no C++ compiler\nand much more")

        return call

    model = build(make_run("lora", "images", "vit_tiny", classes=3, image_size=32), None)
    images = torch.ones(1, 3, 32, 32)
    expected = model(images)
    monkeypatch.setattr(torch, "compile", broken)
    compile_forward(model)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(model(images), expected) and torch.equal(model(images), expected)
    assert [record.getMessage() for record in caplog.records] == [
        "torch.compile is not possible here, the model runs uncompiled: no C++ compiler"
    ]


def test_a_site_chooses_in_its_file(tmp_path):
    file = tmp_path / "fedpeft_site.json"
    file.write_text('{"version": 1, "compile": true}')
    found = read_site_file(file, "north")
    assert (found.compile, found.save_memory) == (True, False)
    file.write_text('{"version": 1, "save_memory": 1}')
    with pytest.raises(ValueError, match="save_memory is 1, expected bool"):
        read_site_file(file, "north")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "backbone", "dataset"),
    [
        ("flap_sam", "sam_tiny", "phantom"),
        ("lora_vpt", "vit_tiny", "images"),
    ],
)
def test_compiled_steps_are_equal(method, backbone, dataset):
    run = make_run(method, dataset, backbone, classes=2, image_size=32)
    colours = 1 if run.task.name == "segmentation" else 3
    images = torch.randn(2, colours, 32, 32, generator=torch.Generator().manual_seed(0))
    model, compiled = build(run, None).eval(), build(run, None).eval()
    compile_forward(compiled)
    for mine, other in zip(answers(compiled, images)[1], answers(model, images)[1], strict=True):
        assert mine is other is None or torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5) is None

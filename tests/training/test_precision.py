"""bfloat16 by what a device can do: refused, taken where it is, and close to float32."""

import pytest
import torch

from fedpeft.common import precision
from fedpeft.common.precision import computing
from fedpeft.config.run import make_run
from fedpeft.models.initial import build
from fedpeft.tasks.segmentation import make_loss
from fedpeft.training.client.trainer import SiteTrainer
from fedpeft.training.engine.loop import train_epoch
from fedpeft.training.engine.optimiser import make_optimiser

CPU = torch.device("cpu")


@pytest.fixture(params=[False, True], ids=["without bfloat16", "with bfloat16"])
def native(request, monkeypatch):
    """A processor with or without bfloat16; torch emulates it where it is missing."""
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: request.param)
    return request.param


def test_auto_takes_what_the_device_has(native):
    with computing("auto", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if native else torch.float32)


def test_float32_stays_float32(native):
    with computing("float32", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_device_without_bfloat16_is_refused_before_training(run, site, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: False)
    asked = run.with_(precision="bfloat16")
    with pytest.raises(RuntimeError, match="'bfloat16' asked for, but device 'cpu' .* 'auto' or 'float32'"):
        SiteTrainer(asked, site, build(asked, None), tmp_path)


def test_processors_are_judged_by_their_instructions(monkeypatch):
    for found, expected in (({"avx2": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert precision.native_bfloat16(CPU) is expected


@pytest.mark.parametrize(
    ("method", "backbone", "dataset"),
    [
        ("flap_sam", "sam_tiny", "phantom"),
        ("dora", "sam_tiny", "phantom"),
        ("ma_sam", "sam_tiny", "phantom"),
        ("mole", "sam_tiny", "phantom"),
        ("full_ft", "sam_tiny", "phantom"),
        ("lora_vpt", "vit_tiny", "images"),
        ("vpt_deep", "sam_tiny", "images"),
        ("adapters", "vit_tiny", "images"),
    ],
)
def test_a_step_in_bfloat16_is_the_step_to_its_rounding(method, backbone, dataset, monkeypatch):
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: True)
    run = make_run(method, dataset, backbone, classes=2, image_size=32)
    generator = torch.Generator().manual_seed(0)
    colours = 1 if run.task.name == "segmentation" else 3
    images = torch.randn(5, colours, 32, 32, generator=generator)
    shape = (5, 32, 32) if run.task.name == "segmentation" else (5,)
    labels = torch.randint(0, 2, shape, generator=generator)
    loss = make_loss(run) if run.task.name == "segmentation" else torch.nn.functional.cross_entropy
    losses = {}
    for name in ("float32", "bfloat16"):
        model = build(run, None).eval()
        optimiser = make_optimiser(run, {path: p for path, p in model.named_parameters() if p.requires_grad})
        losses[name] = train_epoch(
            model, optimiser, loss, [(images, labels)] * 2, lambda index: 1e-3, lambda: False, name
        )
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2e-2)
    assert losses["bfloat16"] != losses["float32"]

"""ViT-B, ViT-L and ViT-H against segment_anything: names, shapes, and blocks at 512 px; no weights are needed."""

import importlib
import json
from functools import cache

import pytest
import torch
from torch import nn

from fedpeft.cli.main import main
from fedpeft.config.backbones import BACKBONES
from fedpeft.config.run import make_run
from fedpeft.models.adapters.base import adapter_prefixes
from fedpeft.models.checkpoints.reading import read_checkpoint
from fedpeft.models.initial import skeleton
from fedpeft.models.payload import counts
from fedpeft.models.sam.network import image_encoder
from fedpeft.models.sam.parts import Block

SIZES = ("sam_vit_b", "sam_vit_l", "sam_vit_h")
HEADS = ("mask_tokens", "output_hypernetworks_mlps", "iou_prediction_head", "output_upscaling")


@cache
def published(name):
    """The names and shapes of segment_anything's own model of that size."""
    build = importlib.import_module("segment_anything.build_sam").sam_model_registry[name.removeprefix("sam_")]
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in build().state_dict().items()}


def shapes(name):
    return published(name).items()


def run_of(name, **fields):
    return make_run("samed", "folder", name, **fields)


@pytest.mark.parametrize("name", SIZES)
def test_every_name_and_shape_is_the_published_one(name):
    """SAMed has the published 4x decoder; with three classes it has the published number of mask tokens."""
    model = skeleton(run_of(name, classes=3, image_size=1024))
    ours = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    ours = {key: shape for key, shape in ours.items() if not key.startswith(adapter_prefixes(model))}
    assert ours == published(name) and len(ours) > 300


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", [224, 512, 1024])
def test_a_file_in_the_published_form_is_read(name, size, tmp_path):
    """Each tensor repeats one number, which a file stores once: some hundred kilobytes instead of gigabytes."""
    tensors = {key: torch.full((1,), index / 1000.0).expand(shape) for index, (key, shape) in enumerate(shapes(name))}
    file = tmp_path / f"{name}.pth"
    torch.save(tensors, file)
    assert file.stat().st_size < 1e6
    run = run_of(name, image_size=size).with_(method="flap_sam")
    model = skeleton(run)
    found = read_checkpoint(file, model, run.backbone)
    wanted = {key: tensor for key, tensor in model.state_dict().items() if ".lora." not in key}
    missing = wanted.keys() - found.keys()
    assert {key.split(".")[1] for key in missing} == set(HEADS)
    for key, tensor in found.items():
        assert tensor.shape == wanted[key].shape
        assert tensor.flatten()[0] == pytest.approx(float(tensors[key].flatten()[0]))


@pytest.mark.parametrize(("file", "model"), [("sam_vit_b", "sam_vit_l"), ("sam_vit_h", "sam_vit_l")])
def test_a_file_of_another_size_is_refused_by_its_first_shape(file, model, tmp_path):
    torch.save({key: torch.zeros(1).expand(shape) for key, shape in shapes(file)}, tmp_path / "other.pth")
    run = run_of(model)
    with pytest.raises(ValueError, match=r"other\.pth does not fit backbone sam_vit_l: 'image_encoder\.pos_embed' has"):
        read_checkpoint(tmp_path / "other.pth", skeleton(run), run.backbone)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("globally", [False, True], ids=["windows", "global"])
def test_a_block_at_512_px_computes_what_segment_anythings_does(name, globally):
    """32 x 32 tokens in windows of 14, so that the last windows are padded."""
    backbone = BACKBONES[name]
    with torch.device("meta"):
        blocks = image_encoder(run_of(name, image_size=512)).blocks
    number = backbone.global_blocks[0] - (not globally)
    window = 0 if globally else 14
    assert blocks[number].attn.window == window
    plain = Block(backbone.dim, backbone.heads, use_rel_pos=True, window_size=window, input_size=(32, 32))
    generator = torch.Generator().manual_seed(0)
    for path, parameter in plain.named_parameters():
        std = 0.7 * backbone.dim**-0.5 if path.endswith("weight") and parameter.ndim == 2 else 0.2
        nn.init.normal_(parameter, std=std, generator=generator)
    ours = blocks[number].to_empty(device="cpu")
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(1, 32, 32, backbone.dim, generator=generator)
    with torch.no_grad():
        expected, found = plain(x), ours(x)
        ours.attn.rel_pos_h.zero_()
        assert (ours(x) - expected).abs().max() > 1e-3, "relative positions do not matter here"
    assert (found - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "dim", "depth", "windowed", "expected"),
    [
        ("sam_vit_b", 768, 12, 8, 90_398_774),
        ("sam_vit_l", 1024, 24, 20, 308_007_734),
        ("sam_vit_h", 1280, 32, 28, 635_744_310),
    ],
)
def test_counts_by_formula(name, dim, depth, windowed, expected):
    """At 224 px, where a global block's grid is as large as a window."""
    heads = BACKBONES[name].heads
    block = 4 * dim + 3 * dim * dim + 3 * dim + dim * dim + dim + 8 * dim * dim + 5 * dim + 2 * 27 * dim // heads
    encoder = 3 * 256 * dim + dim + 14 * 14 * dim + depth * block
    encoder += 256 * dim + 9 * 256 * 256 + 4 * 256
    assert windowed == depth - len(BACKBONES[name].global_blocks)
    full, flap = (make_run(method, "folder", name) for method in ("full_ft", "flap_sam"))
    assert counts(full) == (expected, expected) == (encoder + 6_220 + 3_768_042,) * 2
    # LoRA of rank 32 on q and v of each block and of the decoder's seven attentions, and the output layers.
    assert counts(flap)[0] == depth * 2 * 2 * dim * 32 + 188_416 + 344_424


@pytest.mark.parametrize("name", SIZES[1:])
def test_a_job_names_the_larger_backbones(name, tmp_path):
    arguments = ["job", "render", "flap_sam_kits19", "--backbone", name, "--name", "mine", "--out", str(tmp_path)]
    assert main(arguments) == 0
    text = (tmp_path / "mine" / "app" / "config" / "config_fed_client.json").read_text()
    run = json.loads(text)["components"][0]["args"]["run"]
    assert run["model"]["backbone"] == name

"""Checkpoints of Vision Transformers under published names; the forms are written out here, without the reader."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from fedpeft.config.run import make_run
from fedpeft.models.checkpoints.reading import read_checkpoint
from fedpeft.models.initial import build, skeleton

RUN = make_run("linear_probe", "images", "vit_tiny", classes=3)
PLACE = "image_encoder.blocks.0."


@pytest.fixture(scope="module")
def ours():
    """Random values under our names: no two tensors alike, so that none can be mistaken for another."""
    generator = torch.Generator().manual_seed(0)
    shapes = {path: t.shape for path, t in skeleton(RUN).state_dict().items() if not path.startswith("head.")}
    return {path: 0.1 * torch.randn(shape, generator=generator) for path, shape in shapes.items()}


def timm(ours):
    tensors = {path[len("image_encoder.") :].replace(".lin", ".fc"): t for path, t in ours.items()}
    return tensors | {"head.weight": torch.zeros(1000, 128), "head.bias": torch.zeros(1000)}


def mae(ours):
    more = {
        "mask_token": torch.zeros(1, 1, 64),
        "decoder_pos_embed": torch.zeros(1, 65, 64),
        "decoder_blocks.0.mlp.fc1.weight": torch.zeros(256, 64),
    }
    return timm(ours) | more


def dinov2(ours):
    """LayerScale of ones; folded values are tested by themselves."""
    scales = {f"blocks.{n}.ls{k}.gamma": torch.ones(128) for n in range(6) for k in (1, 2)}
    return timm(ours) | {"mask_token": torch.zeros(1, 128)} | scales


NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "attn.proj": "attention.output.dense",
    "blocks": "encoder.layer",
    "norm": "layernorm",
}
VIT_NAMES = NAMES | {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.lin1": "intermediate.dense",
    "mlp.lin2": "output.dense",
}
DINO_NAMES = NAMES | {"norm1": "norm1", "norm2": "norm2", "mlp.lin1": "mlp.fc1", "mlp.lin2": "mlp.fc2"}


def hugging_face(ours, names, prefix):
    tensors = {}
    for path, tensor in ours.items():
        _, *parts = path.split(".")
        place = f"{names['blocks']}.{parts[1]}." if parts[0] == "blocks" else ""
        stem = ".".join(parts[2 if place else 0 :])
        leaf = "" if stem in names else "." + stem.rpartition(".")[2]
        stem = stem.removesuffix(leaf)
        if stem == "attn.qkv":
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                tensors[f"{prefix}{place}attention.attention.{part}{leaf}"] = third.clone()
        else:
            tensors[f"{prefix}{place}{names[stem]}{leaf}"] = tensor
    return tensors


def hugging_face_vit(ours):
    more = {"vit.pooler.dense.weight": torch.zeros(128, 128), "classifier.weight": torch.zeros(1000, 128)}
    return hugging_face(ours, VIT_NAMES, "vit.") | more


def hugging_face_vit_without_prefix(ours):
    return hugging_face(ours, VIT_NAMES, "") | {"pooler.dense.bias": torch.zeros(128)}


def hugging_face_dinov2(ours):
    scales = {f"dinov2.encoder.layer.{n}.layer_scale{k}.lambda1": torch.ones(128) for n in range(6) for k in (1, 2)}
    return hugging_face(ours, DINO_NAMES, "dinov2.") | scales | {"dinov2.embeddings.mask_token": torch.zeros(1, 128)}


FORMS = [dict, timm, mae, dinov2, hugging_face_vit, hugging_face_vit_without_prefix, hugging_face_dinov2]


def read(path, run=RUN):
    return read_checkpoint(path, skeleton(run), run.backbone)


@pytest.mark.parametrize("form", FORMS)
def test_a_published_form_gives_our_tensors(tmp_path, ours, form):
    save_file(form(ours), tmp_path / "vit.safetensors")
    found = read(tmp_path / "vit.safetensors")
    assert set(found) == set(ours)
    assert all(torch.equal(found[path], ours[path]) for path in ours)


@pytest.mark.parametrize("form", [dict, mae])
def test_a_pth_may_hold_them_under_model(tmp_path, ours, form):
    torch.save({"model": form(ours), "epoch": 3}, tmp_path / "vit.pth")
    found = read(tmp_path / "vit.pth")
    assert set(found) == set(ours) and torch.equal(found["image_encoder.cls_token"], ours["image_encoder.cls_token"])


def test_the_model_holds_the_files_values_whatever_the_method(tmp_path, ours):
    save_file(timm(ours), tmp_path / "vit.safetensors")
    model = build(RUN.with_(method="lora_vpt"), tmp_path / "vit.safetensors")
    assert all(torch.equal(model.state_dict()[path], ours[path]) for path in ours)
    assert not model.head.weight.any()


@pytest.mark.parametrize("name", ["blocks.{}.ls{}.gamma", "encoder.layer.{}.layer_scale{}.lambda1"])
def test_layer_scale_is_folded_into_the_layer_before(tmp_path, ours, name):
    generator = torch.Generator().manual_seed(1)
    gammas = [[torch.rand(128, generator=generator) for _ in range(2)] for _ in range(6)]
    tensors = timm(ours) if name.startswith("blocks") else hugging_face(ours, DINO_NAMES, "")
    scales = {name.format(n, k + 1): gammas[n][k] for n in range(6) for k in (0, 1)}
    save_file(tensors | scales, tmp_path / "dino.safetensors")
    folded, plain = build(RUN, tmp_path / "dino.safetensors"), build(RUN, None)
    plain.load_state_dict(ours, strict=False)
    images = torch.rand(2, 3, 64, 64, generator=generator)
    x = plain.image_encoder.tokens(images)
    for block, (first, second) in zip(plain.image_encoder.blocks, gammas, strict=True):
        x = x + first * block.attn(block.norm1(x))
        x = x + second * block.mlp(block.norm2(x))
    torch.testing.assert_close(folded.features(images), plain.image_encoder.norm(x)[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize("form", [timm, hugging_face_vit])
def test_positions_are_interpolated_and_the_class_tokens_is_kept(tmp_path, ours, form, side):
    save_file(form(ours), tmp_path / "vit.safetensors")
    found = read(tmp_path / "vit.safetensors", RUN.with_(image_size=side))["image_encoder.pos_embed"]
    stored = ours["image_encoder.pos_embed"]
    assert torch.equal(found[:, 0], stored[:, 0])
    grid = stored[:, 1:].double().reshape(1, 8, 8, 128).permute(0, 3, 1, 2)
    expected = interpolate(grid, (side // 8, side // 8), mode="bicubic").permute(0, 2, 3, 1).reshape(1, -1, 128)
    assert torch.equal(found[:, 1:], expected.float())


def test_names_of_no_known_form_are_listed_with_what_is_expected(tmp_path):
    save_file({f"layer{n}.weight": torch.zeros(2) for n in range(9)}, tmp_path / "resnet.safetensors")
    with pytest.raises(ValueError, match=r"resnet\.safetensors.*vit_tiny.*9 tensors") as caught:
        read(tmp_path / "resnet.safetensors")
    for name in ("'layer0.weight', 'layer1.weight'", "timm", "'blocks.0.mlp.fc1.weight'", "Hugging Face", "our own"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop("blocks.1.mlp.fc1.weight"), r"'image_encoder\.blocks\.1\.mlp\.lin1\.weight' is missing"),
        (lambda t: t.update({"reg_token": torch.zeros(1, 4, 128)}), "'reg_token' is not part of the model"),
        (lambda t: t.update({"blocks.6.norm1.bias": torch.zeros(128)}), r"blocks\.6\.norm1\.bias' is not part"),
        (lambda t: t.update({"blocks.0.ls1.gamma": torch.zeros(64)}), r"blocks\.0\.ls1\.gamma' is not part"),
        (lambda t: t.update({"pos_embed": torch.zeros(1, 64, 128)}), r"shape \(1, 64, 128\), expected \(1, 65, 128\)"),
        (lambda t: t.update({"cls_token": torch.zeros(1, 1, 64)}), r"shape \(1, 1, 64\), expected \(1, 1, 128\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, ours, change, expected):
    tensors = timm(ours)
    change(tensors)
    save_file(tensors, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=rf"vit\.safetensors.*{expected}.*known names are.*timm"):
        read(tmp_path / "vit.safetensors")


def test_a_layer_without_its_keys_is_missing(tmp_path, ours):
    tensors = hugging_face_vit(ours)
    del tensors["vit.encoder.layer.2.attention.attention.key.weight"]
    save_file(tensors, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"'image_encoder\.blocks\.2\.attn\.qkv\.weight' is missing"):
        read(tmp_path / "vit.safetensors")


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path, ours, form):
    path = tmp_path / f"cut.{form}"
    save_file(timm(ours), path) if form == "safetensors" else torch.save(timm(ours), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\..* truncated .*'image_encoder.cls_token'"):
        read(path)


def test_half_precision_becomes_single(tmp_path, ours):
    save_file({path: t.bfloat16() for path, t in hugging_face_vit(ours).items()}, tmp_path / "vit.safetensors")
    found = read(tmp_path / "vit.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert torch.equal(found[f"{PLACE}attn.qkv.bias"], ours[f"{PLACE}attn.qkv.bias"].bfloat16().float())


def test_a_model_without_a_dialect_reads_its_own_names_alone(tmp_path, ours):
    """SAM's files are not searched for other forms."""
    run = RUN.with_(backbone="sam_tiny")
    save_file(timm(ours), tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match="'image_encoder.pos_embed' is missing.*Use the sam_tiny checkpoint as it was"):
        read(tmp_path / "vit.safetensors", run)

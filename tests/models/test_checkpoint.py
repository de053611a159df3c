"""Published checkpoints: key names, shapes, resizing, and errors that name the first offending key."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from fedpeft.common.files import sha256_of
from fedpeft.config.run import make_run
from fedpeft.models.checkpoints.reading import read_checkpoint
from fedpeft.models.initial import build, skeleton
from fedpeft.models.sam.parts import modeling

VIT_B = make_run("flap_sam", "phantom", "sam_vit_b", classes=1)
TINY = make_run("flap_sam", "phantom", "sam_tiny", classes=1)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file in the published form: ViT-B at 1024 px with its own 4x decoder and four mask tokens, random values."""
    with torch.device("meta"):
        encoder = modeling.ImageEncoderViT(
            img_size=1024,
            patch_size=16,
            embed_dim=768,
            depth=12,
            num_heads=12,
            out_chans=256,
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=(2, 5, 8, 11),
        )
        prompt = modeling.PromptEncoder(256, (64, 64), (1024, 1024), 16)
        transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
        decoder = modeling.MaskDecoder(transformer_dim=256, transformer=transformer)
        shapes = modeling.Sam(encoder, prompt, decoder).state_dict()
    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.rand(value.shape, generator=generator) for key, value in shapes.items()}
    assert tensors["image_encoder.pos_embed"].shape == (1, 64, 64, 768)
    assert tensors["image_encoder.blocks.2.attn.rel_pos_h"].shape == (127, 64)
    path = tmp_path_factory.mktemp("weights") / "sam_vit_b_01ec64.pth"
    torch.save(tensors, path)
    return path, tensors


@pytest.mark.parametrize("side", [224, 512])
def test_the_published_form_loads_at_any_image_size(published, side):
    path, tensors = published
    run = VIT_B.with_(image_size=side)
    found = read_checkpoint(path, skeleton(run), run.backbone)
    grid = side // 16
    positions = interpolate(tensors["image_encoder.pos_embed"].permute(0, 3, 1, 2), size=(grid, grid), mode="bilinear")
    torch.testing.assert_close(found["image_encoder.pos_embed"], positions.permute(0, 2, 3, 1))
    # Global blocks are stretched to the grid, windowed ones keep their 27 positions.
    relative = "image_encoder.blocks.{}.attn.rel_pos_w"
    assert found[relative.format(5)].shape == (2 * grid - 1, 64)
    line = interpolate(tensors[relative.format(5)].T[None], size=2 * grid - 1, mode="linear")[0].T
    torch.testing.assert_close(found[relative.format(5)], line)
    assert torch.equal(found[relative.format(0)], tensors[relative.format(0)])
    second = "mask_decoder.output_upscaling.3.weight"
    assert torch.equal(found[second], tensors[second])
    # The heads depend on the classes, the later upscaling stages do not exist in the published file.
    fresh = {key for key in skeleton(run).state_dict() if key not in found and ".lora." not in key}
    assert {key.split(".")[1] for key in fresh} == {
        "mask_tokens",
        "output_hypernetworks_mlps",
        "iou_prediction_head",
        "output_upscaling",
    }
    stages = ("mask_decoder.output_upscaling.0", "mask_decoder.output_upscaling.3")
    assert not [key for key in fresh if key.startswith(stages)]


def test_the_model_holds_the_files_values(published):
    path, tensors = published
    model = build(VIT_B, path)
    assert torch.equal(model.image_encoder.blocks[3].attn.qkv.weight, tensors["image_encoder.blocks.3.attn.qkv.weight"])
    with torch.no_grad():
        assert model(torch.rand(1, 1, 224, 224)).shape == (1, 2, 224, 224)


@pytest.fixture
def tiny_tensors():
    return {key: value.contiguous() for key, value in build(TINY.with_(method="full_ft"), None).state_dict().items()}


def read(path):
    return read_checkpoint(path, skeleton(TINY), TINY.backbone)


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_both_kinds_of_files_give_the_same(tmp_path, tiny_tensors, form):
    path = tmp_path / f"tiny.{form}"
    save_file(tiny_tensors, path) if form == "safetensors" else torch.save(tiny_tensors, path)
    assert torch.equal(read(path)["image_encoder.pos_embed"], tiny_tensors["image_encoder.pos_embed"])


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_missing_key_is_named(tmp_path, tiny_tensors, form):
    del tiny_tensors["image_encoder.blocks.1.attn.qkv.weight"]
    path = tmp_path / f"tiny.{form}"
    save_file(tiny_tensors, path) if form == "safetensors" else torch.save(tiny_tensors, path)
    with pytest.raises(ValueError, match=r"tiny\..*'image_encoder\.blocks\.1\.attn\.qkv\.weight' is missing"):
        read(path)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path, tiny_tensors):
    tiny_tensors["image_encoder.neck.0.weight"] = torch.zeros(64, 100, 1, 1)
    save_file(tiny_tensors, tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match=r"neck\.0\.weight' has shape \(64, 100, 1, 1\), expected \(64, 128, 1, 1\)"):
        read(tmp_path / "tiny.safetensors")


def test_another_models_file_is_refused_by_its_first_key(tmp_path, tiny_tensors):
    tiny_tensors["image_encoder.blocks.4.norm1.weight"] = torch.zeros(128)
    save_file(tiny_tensors, tmp_path / "deeper.safetensors")
    with pytest.raises(ValueError, match="'image_encoder.blocks.4.norm1.weight' is not part of the model"):
        read(tmp_path / "deeper.safetensors")


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path, tiny_tensors, form):
    path = tmp_path / f"cut.{form}"
    save_file(tiny_tensors, path) if form == "safetensors" else torch.save(tiny_tensors, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\..* truncated .*'image_encoder.pos_embed'"):
        read(path)


def test_a_pickle_is_not_executed(tmp_path):
    import pickle

    marker = tmp_path / "executed"

    class Trap:
        def __reduce__(self):
            return (type(marker).touch, (marker,))

    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="trap.pth"):
        read(path)
    assert not marker.exists()


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        read(tmp_path / "nothing.pth")


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

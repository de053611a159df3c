"""A file that is another one is refused in one line, which says what it seems to be and which command takes it."""

import argparse
import json
import shutil

import peer_files
import pytest
import torch
from peer_files import DIM, SMALL
from safetensors.torch import save_file

from fedpeft.config.backbones import BACKBONES
from fedpeft.config.run import make_run
from fedpeft.models.checkpoints.reading import read_checkpoint, shipped
from fedpeft.models.initial import build, skeleton
from fedpeft.models.peers.form import PEERS
from fedpeft.models.peers.recognition import refuse_other
from fedpeft.study.apply.importing import import_file


@pytest.fixture(scope="module", autouse=True)
def backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BACKBONES, "_entries", dict(BACKBONES) | {SMALL.name: SMALL})
        yield


@pytest.fixture(scope="module")
def files(backbone, tmp_path_factory):
    """A folder of files: right ones of each program, and wrong ones."""
    root = tmp_path_factory.mktemp("files")
    base = root / "sam.pth"
    torch.save(peer_files.sam(), base)
    (root / "copy.pth").write_bytes(base.read_bytes())
    torch.save(peer_files.sam(depth=3), root / "deeper.pth")
    torch.save(peer_files.sam(8), root / "medsam.pth")
    made = {"flap_sam": peer_files.flap_sam(base), "samed": peer_files.samed(base), "ma_sam": peer_files.ma_sam(base)}
    for name, tensors in made.items():
        torch.save(tensors, root / f"{name}.pth")
    ours = {name: t.contiguous() for name, t in build(peer_files.small("samed"), base).state_dict().items()}
    save_file(ours, root / "global.safetensors")
    torch.save(huge(), root / "huge.pth")
    torch.save(made["samed"] | {"fati_qa": torch.zeros(4, 64)}, root / "samed_decoder.pth")
    torch.save({name: t for name, t in made["samed"].items() if name != "w_b_001"}, root / "lacking.pth")
    torch.save({name: t for name, t in made["ma_sam"].items() if name != "v_FacTs_001"}, root / "uncored.pth")
    gates = peer_files.flap_sam(base, experts=3)
    torch.save({name: t for name, t in gates.items() if "lora_scale" not in name}, root / "mole_global.pth")
    torch.save({"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(2)}, root / "resnet.pth")
    save_file({"base_model.model.q.lora_A.weight": torch.zeros(2)}, root / "adapter_model.safetensors")
    torch.save({"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]}, root / "optimiser.pth")
    torch.save({"epoch": 3, "optimizer": {"state": {}, "param_groups": []}}, root / "optimiser_only.pth")
    torch.save({}, root / "empty_dict.pth")
    torch.save([1, 2], root / "list.pth")
    torch.save({"args": argparse.Namespace(lr=0.1), "state_dict": made["samed"]}, root / "code.pth")
    (root / "cut.pth").write_bytes((root / "samed.pth").read_bytes()[:4000])
    (root / "cut.safetensors").write_bytes((root / "global.safetensors").read_bytes()[:4000])
    (root / "photo.pth").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    (root / "volume.pth").write_bytes(b"\x1f\x8b" + bytes(100))
    (root / "page.pth").write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    (root / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
    (root / "nothing.pth").touch()
    (root / "peft").mkdir()
    (root / "peft" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (root / "run").mkdir()
    (root / "run" / "run.json").write_text("{}")
    shutil.copy(shipped(BACKBONES["sam_tiny"]), root / "sam_tiny.safetensors")
    return root


def huge():
    """SAMed's file for ViT-H, whose names and shapes alone are looked at."""
    found = {
        f"w_{leaf}_{n:03d}": torch.zeros((1, 1280) if leaf == "a" else (1280, 1)) for leaf in "ab" for n in range(64)
    }
    return found | {"mask_decoder.mask_tokens.weight": torch.zeros(9, 256)}


SIZE = f"an encoder of width {DIM} and depth 2"
# Format that is named, file, what else is given, parts of the message in their order.
WRONG = {
    "samed as flap_sam": (
        "flap_sam",
        "samed",
        {},
        f"an adapter saved by SAMed for {SIZE}, 512 px, rank 4, 3 classes",
        "--format samed",
    ),
    "ma_sam as samed": (
        "samed",
        "ma_sam",
        {},
        f"an adapter saved by MA-SAM for {SIZE}, 512 px, rank 4, 3 classes",
        "--format ma_sam",
    ),
    "flap_sam as medsam": (
        "medsam",
        "flap_sam",
        {},
        f"a model saved by FLAP-SAM for {SIZE}, 32 px, rank 3, 2 classes",
        "--format flap_sam",
    ),
    "flap_sam as ma_sam": ("ma_sam", "flap_sam", {}, "a model saved by FLAP-SAM", "--format flap_sam"),
    "medsam as flap_sam": (
        "flap_sam",
        "medsam",
        {},
        "SAM's weights without adapters, as published by Meta or as saved by MedSAM",
        "64 px",
        "import MedSAM's with: ",
        "--format medsam",
    ),
    "sam as flap_sam": (
        "flap_sam",
        "copy",
        {},
        "SAM's weights without adapters, as published by Meta",
        "SAM's own needs no import, give it as --base",
    ),
    "sam as medsam": (
        "medsam",
        "copy",
        {},
        r"SAM's own checkpoint, as its tensors are those of ",
        r"sam\.pth: there is nothing to import",
    ),
    "our own base": (
        "flap_sam",
        "sam_tiny.safetensors",
        {},
        "a foundation model's own checkpoint, from which others are trained: it needs no import; give it as --base",
    ),
    "our own base as medsam": ("medsam", "sam_tiny.safetensors", {}, "a foundation model's own checkpoint, from which"),
    "ours": ("samed", "global.safetensors", {}, "the tensors of a fedpeft run: they need no import", "--run FOLDER"),
    "our run": ("samed", "run/", {}, "a run of fedpeft: it needs no import; use it with --run"),
    "vit-h with vit-b": (
        "samed",
        "huge",
        {"backbone": "sam_vit_b"},
        "SAMed for ViT-H, 512 px, rank 1, 8 classes: its encoder has width 1280 and depth 32, sam_vit_b has 768 and 12",
        "--backbone",
    ),
    "samed's decoder": ("samed", "samed_decoder", {}, "SAMed's variant with LoRA in the mask decoder: no method here"),
    "lacks a tensor": (
        "samed",
        "lacking",
        {},
        r"does not hold the network of samed with sam_small",
        r"'image_encoder\.blocks\.0\.attn\.qkv\.lora\.v\.B' is missing",
    ),
    "lacks a core": ("ma_sam", "uncored", {}, "an incomplete file of MA-SAM: 'v_FacTs_001' is missing; save it again"),
    "no gates": ("flap_sam", "mole_global", {}, "3 experts and no lora_scale", "client_<site>_ckpt"),
    "another network": (
        "samed",
        "resnet",
        {},
        "another network: the first of its 2 tensors are 'conv1.weight', 'fc.bias': give a file that ",
        "SAMed",
    ),
    "peft's file": ("samed", "adapter_model.safetensors", {}, "an adapter of Hugging Face's peft"),
    "peft's folder": (
        "flap_sam",
        "peft/",
        {},
        r"an adapter of Hugging Face's peft \(LORA\): no method here has its layers",
    ),
    "optimiser": ("flap_sam", "optimiser", {}, "the state of an optimiser without a model: give the file of the model"),
    "optimiser and epoch": ("flap_sam", "optimiser_only", {}, "the state of an optimiser without a model"),
    "empty dict": ("flap_sam", "empty_dict", {}, "an empty dict"),
    "a list": ("flap_sam", "list", {}, "a list without tensors"),
    "code": (
        "flap_sam",
        "code",
        {},
        r"a pickle that holds more than tensors \(argparse\.Namespace\)",
        r"can execute code, and is not opened",
        r"state_dict",
    ),
    "truncated": ("samed", "cut", {}, "a truncated checkpoint: its end is missing: fetch it again"),
    "truncated safetensors": ("samed", "cut.safetensors", {}, "a truncated or damaged safetensors file"),
    "jpeg": ("samed", "photo", {}, "a JPEG image: give the .pth file"),
    "volume": ("samed", "volume", {}, r"a gzip file, such as a \.nii\.gz volume"),
    "web page": ("samed", "page", {}, "a web page"),
    "text": ("samed", "pointer", {}, "a text file"),
    "no bytes": ("samed", "nothing", {}, "an empty file"),
    "classes and data set": (
        "samed",
        "samed",
        {"dataset": "kits19"},
        r"has 3 outputs besides background, --dataset kits19 \(kidney, tumour\) says 2",
    ),
    "classes and labels": (
        "samed",
        "samed",
        {"labels": ("liver",)},
        "has 3 outputs besides background, --labels liver says 1",
    ),
    "size": (
        "flap_sam",
        "flap_sam",
        {"image_size": 64},
        "32 px, rank 3, 2 classes, --image-size is 64; leave --image-size out",
    ),
    "method": (
        "flap_sam",
        "flap_sam",
        {"method": "samed"},
        r"does not hold the network of samed",
        r"leave --method out",
    ),
    "unknown data set's task": (
        "samed",
        "samed",
        {"dataset": "isic2019"},
        "--dataset isic2019 is for classification, but ",
        " segments",
    ),
    "unknown data set": (
        "samed",
        "samed",
        {"dataset": "kits91", "labels": ("a", "b", "c")},
        "--dataset is 'kits91', expected one of phantom, folder, kits19, ",
        "; --labels names",
    ),
}


def path_of(files, name):
    return files / (name.rstrip("/") if "." in name or "/" in name else f"{name}.pth")


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named(tmp_path, files, case):
    form, name, fields, *expected = WRONG[case]
    with pytest.raises(ValueError, match=".*".join(expected)) as caught:
        import_file(form, path_of(files, name), tmp_path / "run", files / "sam.pth", **fields)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_pickle_is_not_executed(tmp_path, files):
    marker = tmp_path / "executed"

    class Trap:
        def __reduce__(self):
            return (type(marker).touch, (marker,))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="more than tensors"):
        import_file("samed", tmp_path / "trap.pth", tmp_path / "run", files / "sam.pth")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("base", "kind", "expected"),
    [
        (
            "deeper.pth",
            ValueError,
            rf"deeper\.pth holds SAM with .* depth 3, but .* is an adapter saved by SAMed for {SIZE}.*of that size",
        ),
        ("no.pth", FileNotFoundError, r"--base .*no\.pth does not exist; give SAM's checkpoint"),
        ("photo.pth", ValueError, r"photo\.pth seems to be a JPEG image"),
        ("ma_sam.pth", ValueError, r"ma_sam\.pth seems to be an adapter saved by MA-SAM.*SAM's own checkpoint"),
        ("resnet.pth", ValueError, "holds no SAM"),
        (None, ValueError, "give SAM's checkpoint that it was trained from with --base"),
    ],
)
def test_a_wrong_base_is_named(tmp_path, files, base, kind, expected):
    with pytest.raises(kind, match=expected):
        import_file("samed", files / "samed.pth", tmp_path / "run", base and files / base)
    assert not (tmp_path / "run").exists()


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lost\.pth does not exist"):
        import_file("samed", tmp_path / "lost.pth", tmp_path / "run")


def test_values_that_are_not_finite_are_refused(tmp_path, files):
    tensors = torch.load(files / "samed.pth", weights_only=True)
    tensors["w_b_001"] = tensors["w_b_001"].detach() * float("nan")
    torch.save(tensors, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan\.pth: 'image_encoder.*v\.B' of shape .* is not finite"):
        import_file("samed", tmp_path / "nan.pth", tmp_path / "run", files / "sam.pth")


@pytest.mark.parametrize("name", ["flap_sam", "samed", "ma_sam"])
def test_as_a_checkpoint_it_is_refused_with_the_command_that_takes_it(files, name):
    run = peer_files.small("flap_sam", classes=2)
    with pytest.raises(
        ValueError,
        match=f"does not fit .*seems to be .* saved by .*fedpeft import --format {name} --file",
    ):
        read_checkpoint(files / f"{name}.pth", skeleton(run), run.backbone)


def test_other_checkpoints_get_no_such_hint(files):
    run = peer_files.small("flap_sam", classes=2)
    with pytest.raises(ValueError) as caught:
        read_checkpoint(files / "deeper.pth", skeleton(run), run.backbone)
    assert "is not part of the model" in str(caught.value) and "import" not in str(caught.value)


def test_another_size_without_a_backbone_is_named(tmp_path, files, monkeypatch):
    monkeypatch.setattr(BACKBONES, "_entries", {name: entry for name, entry in BACKBONES.items() if entry.dim != 1280})
    with pytest.raises(ValueError, match=r"SAMed for ViT-H.*no backbone has this size: .*sam_vit_b"):
        import_file("samed", files / "huge.pth", tmp_path / "run", files / "sam.pth")


def test_there_are_many_kinds_of_wrong_files():
    assert len(WRONG) >= 30 and len({tuple(expected) for _, _, _, *expected in WRONG.values()}) == len(WRONG)


@pytest.mark.parametrize(("backbone", "given"), [("sam_tiny", False), ("sam_vit_b", True)])
def test_a_base_is_asked_for_where_none_is_shipped(tmp_path, backbone, given):
    run = make_run("flap_sam", "folder", backbone)
    tensors = PEERS["flap_sam"].theirs(skeleton(run).state_dict())
    with pytest.raises(ValueError, match="--format flap_sam --file") as caught:
        refuse_other(tmp_path / "some.pth", tensors, PEERS["samed"])
    assert ("--base SAM.pth" in str(caught.value)) == given

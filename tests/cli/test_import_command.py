"""Import, evaluate, infer, export and compare: what a user of another program's adapter does, command by command."""

import json

import nibabel
import numpy as np
import peer_files
import pytest
import torch
from peer_files import SMALL

from fedpeft.config.backbones import BACKBONES
from fedpeft.data.datalist import read_site
from fedpeft.training.server.run_folder import RunFolder


@pytest.fixture(scope="module", autouse=True)
def backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BACKBONES, "_entries", dict(BACKBONES) | {SMALL.name: SMALL})
        yield


@pytest.fixture(scope="module")
def files(backbone, tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    torch.save(peer_files.sam(), root / "sam.pth")
    torch.save({"epoch": 4, "state_dict": peer_files.flap_sam(root / "sam.pth")}, root / "flap_sam.pth")
    torch.save(peer_files.samed(root / "sam.pth"), root / "samed.pth")
    torch.save(peer_files.sam(8), root / "medsam.pth")
    return root


@pytest.fixture
def imported(fedpeft, files, tmp_path):
    code, text, err = fedpeft(
        "import", "--format", "flap_sam", "--file", files / "flap_sam.pth", "--base", files / "sam.pth",
        "--out", tmp_path / "run", "--dataset", "phantom",
    )  # fmt: skip
    assert code == 0, err
    return tmp_path / "run", text


def test_import_says_what_it_found_and_what_it_made(imported, files):
    out, text = imported
    assert "a model saved by FLAP-SAM for an encoder of width 32 and depth 2, 32 px, rank 3, 2 classes" in text
    assert f"{out}: flap_sam with sam_small at 32 px; organ, lesion; preprocessing authors" in text
    assert f"Use the run with --checkpoint {files / 'sam.pth'}" in text


@pytest.mark.parametrize("labels", [(), ("--labels", "a,b,c")])
def test_classes_without_names_are_noted(fedpeft, files, tmp_path, labels):
    arguments = ("--format", "samed", "--file", files / "samed.pth", "--base", files / "sam.pth")
    code, _, err = fedpeft("import", *arguments, "--out", tmp_path / "run", *labels)
    assert code == 0 and ("note: Its classes have no name" in err) == (not labels)


def test_the_run_serves_evaluate_and_infer(fedpeft, imported, files, small_phantom, tmp_path):
    run, base = imported[0], ("--checkpoint", files / "sam.pth")
    code, text, err = fedpeft("evaluate", "--run", run, "--data", small_phantom, "--json", *base)
    assert code == 0, err
    assert len(json.loads(text)["sites"]) == 3 and (run / "evaluation.json").is_file()
    image = read_site(small_phantom / "site-1").splits["test"][0].image
    code, _, err = fedpeft("infer", "--run", run, "--image", image, "--out", tmp_path / "mask.nii.gz", *base)
    assert code == 0, err
    assert set(np.unique(np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj))) <= {0, 1, 2}


def test_export_gives_it_back(fedpeft, imported, files, tmp_path):
    arguments = ["--run", imported[0], "--format", "flap_sam", "--checkpoint", files / "sam.pth"]
    code, text, err = fedpeft("export", *arguments, "--out", tmp_path / "back.pth")
    assert code == 0, err
    assert "back.pth: a model saved by FLAP-SAM" in text
    before, after = (
        torch.load(file, weights_only=True)["state_dict"] for file in (files / "flap_sam.pth", tmp_path / "back.pth")
    )
    assert torch.load(tmp_path / "back.pth", weights_only=True)["epoch"] == 4
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_export_of_a_finished_run_of_ours(fedpeft, finished, tmp_path):
    out = tmp_path / "global.pth"
    code, _, err = fedpeft("export", "--run", finished.path, "--format", "flap_sam", "--out", out)
    assert code == 0, err
    content = torch.load(out, weights_only=True)
    assert content["epoch"] == 0
    expected = finished.tensors()["image_encoder.blocks.3.attn.qkv.lora.v.B"]
    assert torch.equal(content["state_dict"]["image_encoder.blocks.3.attn.lora_w_b_v.0.weight"], expected)
    code, _, err = fedpeft("export", "--run", finished.path, "--format", "ma_sam", "--out", out)
    assert code == 1 and "use --format flap_sam" in err and err.count("\n") == 1


def test_medsam_is_used_with_itself_as_checkpoint(fedpeft, files, tmp_path):
    medsam = files / "medsam.pth"
    code, text, err = fedpeft(
        "import", "--format", "medsam", "--file", medsam, "--base", files / "sam.pth", "--out", tmp_path / "run"
    )
    assert code == 0 and "is not needed any more" in err
    assert f"Use the run with --checkpoint {medsam}" in text
    assert RunFolder(tmp_path / "run").run.model.initial == "medical"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--format", "flap_sam", "--file", "samed.pth", "--base", "sam.pth"), "--format samed"),
        (("--format", "samed", "--file", "samed.pth"), "--base FILE"),
        (("--format", "samed", "--file", "samed.pth", "--base", "sam.pth", "--dataset", "kits19"), "kidney, tumour"),
        (
            ("--format", "samed", "--file", "samed.pth", "--base", "sam.pth", "--backbone", "sam_vit_b"),
            "has 768 and 12",
        ),
    ],
)
def test_a_fault_is_one_line(fedpeft, files, tmp_path, arguments, expected):
    places = [files / item if item.endswith(".pth") else item for item in arguments]
    code, _, err = fedpeft("import", *places, "--out", tmp_path / "run")
    assert code == 1 and err.startswith("fedpeft import: ") and expected in err and err.count("\n") == 1


def test_evaluate_with_an_adapter_as_checkpoint_names_the_command(fedpeft, imported, files, small_phantom):
    code, _, err = fedpeft(
        "evaluate", "--run", imported[0], "--data", small_phantom, "--checkpoint", files / "samed.pth"
    )
    assert code == 1 and "fedpeft import --format samed" in err and err.count("\n") == 1


def test_compare_starts_from_the_imported_run_or_says_why_not(fedpeft, imported, small_phantom, files, tmp_path):
    arguments = ["--data", small_phantom, "--backbone", "sam_small", "--checkpoint", files / "sam.pth", "--rounds", 1]
    arguments += ["--initial-run", imported[0], "--out", tmp_path / "out", "--methods", "dora"]
    code, _, err = fedpeft("compare", *arguments, "--preprocessing", "standard")
    note = f"note: {imported[0]} has preprocessing authors, here standard: add --preprocessing authors"
    assert note in err.splitlines()
    code, _, err = fedpeft("compare", *arguments)
    assert "note: " not in err
    assert code == 1 and "dora cannot start from" in err and "its method is 'flap_sam'" in err

"""Files of other programs become runs: the same tensors, the same predictions, the same file back."""

import json

import peer_files
import pytest
import torch
from peer_files import OUTPUT, SMALL, small, values

from fedpeft.common.files import read_tensors, sha256_of
from fedpeft.config.backbones import BACKBONES
from fedpeft.models.initial import build
from fedpeft.models.payload import whole
from fedpeft.study.apply.exporting import export_file
from fedpeft.study.apply.importing import FROZEN, import_file
from fedpeft.training.server.run_folder import FINISHED

DECODER = ("mask_decoder.",)


@pytest.fixture(scope="module", autouse=True)
def backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BACKBONES, "_entries", dict(BACKBONES) | {SMALL.name: SMALL})
        yield


@pytest.fixture(scope="module")
def base(backbone, tmp_path_factory):
    """SAM as published, small; the authors' files are made from it."""
    path = tmp_path_factory.mktemp("sam") / "sam.pth"
    torch.save(peer_files.sam(), path)
    return path


# Form, what its file holds, what wraps it, the method that it is.
FILES = {
    "flap_sam": ("flap_sam", lambda base: peer_files.flap_sam(base), "flap_sam"),
    "whole decoder": ("flap_sam", lambda base: peer_files.flap_sam(base, prefixes=DECODER), "lora_dec_ft"),
    "mole": ("flap_sam", lambda base: peer_files.flap_sam(base, experts=3), "mole"),
    "dora": ("flap_sam", lambda base: peer_files.flap_sam(base, dora=True), "dora"),
    "no adapters": ("flap_sam", lambda base: peer_files.flap_sam(base, experts=0), "pdec_ft"),
    "decoder": ("flap_sam", lambda base: peer_files.flap_sam(base, experts=0, prefixes=DECODER), "dec_ft"),
    "everything": (
        "flap_sam",
        lambda base: peer_files.flap_sam(base, experts=0, prefixes=("image", "mask")),
        "full_ft",
    ),
    "samed": ("samed", lambda base: peer_files.samed(base), "samed"),
    "ma_sam": ("ma_sam", lambda base: peer_files.ma_sam(base), "ma_sam"),
}
WRAPPERS = {
    "bare": lambda tensors: tensors,
    "state_dict": lambda tensors: {
        "epoch": 7,
        "state_dict": tensors,
        "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]},
        "scaler": None,
        "client": "A",
    },
    "model": lambda tensors: {"model": tensors, "optimizer": {}},
    "module.": lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
    "module. in state_dict": lambda tensors: {"state_dict": {f"module.{name}": t for name, t in tensors.items()}},
}


@pytest.fixture(scope="module", params=FILES)
def made(request, base, tmp_path_factory):
    """Form, the file's tensors, the import and its file."""
    form, make, method = FILES[request.param]
    folder = tmp_path_factory.mktemp(form)
    tensors = make(base)
    torch.save(tensors, folder / "theirs.pth")
    found = import_file(form, folder / "theirs.pth", folder / "run", base)
    assert found.folder.run.model.method == method
    return form, tensors, found, folder


def test_predictions_are_those_of_the_tensors_placed_by_hand(made, base):
    form, tensors, found, _ = made
    run = found.folder.run
    expected = build(run, base)
    state = expected.state_dict()
    placed = {name: tensor for name, tensor in peer_files.by_hand(form, tensors).items() if name in state}
    assert placed.keys() >= whole(run).keys()
    expected.load_state_dict(placed, strict=False)
    images = torch.rand(5, 1, run.model.image_size, run.model.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = found.folder.model(base)(images)
        assert torch.equal(logits, expected.eval()(images)) and logits.std() > 0.01
        assert not torch.allclose(logits, build(run, base).eval()(images))


def test_the_file_comes_back_tensor_by_tensor(made, base):
    form, tensors, found, folder = made
    export_file(form, found.folder, folder / "back.pth", base)
    back = torch.load(folder / "back.pth", weights_only=True)
    back = back["state_dict"] if form == "flap_sam" else back
    assert back.keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in back.items())


def test_a_run_comes_back_bit_for_bit(made, base):
    form, _, found, folder = made
    export_file(form, found.folder, folder / "again.pth", base)
    again = import_file(form, folder / "again.pth", folder / "again", base)
    assert again.folder.run == found.folder.run
    before, after = found.folder.tensors(), again.folder.tensors()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_run_json_says_what_it_was_made_of(made, base):
    form, _, found, folder = made
    assert found.folder.description["imported"] == {"format": form, "sha256": sha256_of(folder / "theirs.pth")}
    assert found.folder.description["status"] == FINISHED and found.folder.progress().ended
    assert found.folder.description["checkpoint"] == {"backbone": "sam_small", "sha256": sha256_of(base)}
    assert str(folder) not in json.dumps(found.folder.description)


@pytest.mark.parametrize(
    ("kind", "wrap"), [*(("samed", wrap) for wrap in WRAPPERS), ("ma_sam", "module."), ("flap_sam", "state_dict")]
)
def test_wrappers_and_prefixes_make_no_difference(tmp_path, base, kind, wrap):
    form, make, _ = FILES[kind]
    tensors = make(base)
    torch.save(WRAPPERS[wrap](tensors), tmp_path / "file.pth")
    found = import_file(form, tmp_path / "file.pth", tmp_path / "run", base).folder
    hand = peer_files.by_hand(form, tensors)
    assert all(torch.equal(tensor, hand[name]) for name, tensor in found.tensors().items())
    assert found.description["imported"].get("epoch") == (7 if wrap == "state_dict" else None)


def test_rank_classes_and_size_are_the_files(tmp_path, base):
    torch.save(peer_files.flap_sam(base, classes=1, rank=5), tmp_path / "a.pth")
    run = import_file("flap_sam", tmp_path / "a.pth", tmp_path / "run", base).folder.run
    assert (run.option("rank"), run.data.classes, run.model.image_size) == (5, 1, 32)
    assert run.option("alpha") is None


def test_a_data_set_names_the_classes(tmp_path, base):
    torch.save(peer_files.flap_sam(base, classes=2), tmp_path / "a.pth")
    run = import_file("flap_sam", tmp_path / "a.pth", tmp_path / "run", base, dataset="kits19").folder.run
    assert run.data.labels == ("kidney", "tumour")
    run = import_file("flap_sam", tmp_path / "a.pth", tmp_path / "two", base, labels=("a", "b")).folder.run
    assert run.data.labels == ("a", "b")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("flap_sam", ("authors", "repeat", 1)), ("samed", ("samed", "inside", 5)), ("ma_sam", ("ma_sam", "repeat", 1))],
)
def test_images_enter_as_they_did_there(tmp_path, base, kind, expected):
    form, make, _ = FILES[kind]
    torch.save(make(base), tmp_path / "a.pth")
    folder = import_file(form, tmp_path / "a.pth", tmp_path / "run", base).folder
    data = folder.run.data
    assert (data.preprocessing, data.stack_ends, data.stride) == expected
    assert folder.preprocessing == folder.run.preprocessing != folder.run.with_(preprocessing="standard").preprocessing
    assert folder.preprocessing.fit == "stretch"
    again = import_file(form, tmp_path / "a.pth", tmp_path / "two", base, preprocessing="standard", stride=5).folder.run
    assert (again.data.preprocessing, again.data.stride) == ("standard", 5)


def test_a_files_scale_is_an_option(tmp_path, base):
    """LoRA's scale stands in no file; with alpha 2 r the products count twice."""
    tensors = peer_files.flap_sam(base)
    torch.save(tensors, tmp_path / "a.pth")
    doubled = {name: 2 * tensor if "lora_w_b" in name else tensor for name, tensor in tensors.items()}
    torch.save(doubled, tmp_path / "b.pth")
    models = [
        import_file("flap_sam", tmp_path / f"{name}.pth", tmp_path / name, base, alpha=alpha).folder.model(base)
        for name, alpha in (("a", 6.0), ("b", None))
    ]
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(models[0](images), models[1](images))
    with pytest.raises(ValueError, match="alpha 6.0, which FLAP-SAM's files cannot hold: no format holds it"):
        export_file("flap_sam", import_file("flap_sam", tmp_path / "a.pth", tmp_path / "c", base, alpha=6.0).folder,
                    tmp_path / "c.pth", base)  # fmt: skip


def test_an_adapters_size_can_be_set_where_its_file_does_not_tell(tmp_path, base):
    torch.save(peer_files.ma_sam(base), tmp_path / "a.pth")
    assert import_file("ma_sam", tmp_path / "a.pth", tmp_path / "one", base).folder.run.model.image_size == 64
    run = import_file("ma_sam", tmp_path / "a.pth", tmp_path / "two", base, image_size=32).folder.run
    assert run.model.image_size == 32


# Rounding, and where it begins to be more than that.


def drifted(tensors, share):
    """Every frozen tensor moved by a share of its largest value, as reading, averaging and writing does."""
    make = values(9)
    trained = (*OUTPUT, "mask_decoder.iou")
    return {
        name: tensor + share * tensor.abs().max() * make(tensor.shape).clamp(-1, 1)
        if not name.startswith(trained) and "lora_" not in name
        else tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("share", [3e-7, 1e-5])
def test_frozen_tensors_may_drift_by_rounding(tmp_path, base, share):
    tensors = drifted(peer_files.flap_sam(base), share)
    torch.save(tensors, tmp_path / "a.pth")
    found = import_file("flap_sam", tmp_path / "a.pth", tmp_path / "run", base)
    assert found.folder.run.model.method == "flap_sam" and found.rounded > 100
    export_file("flap_sam", found.folder, tmp_path / "back.pth", base)
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in back.items())


def test_tensors_that_no_method_trains_are_not_lost_silently(tmp_path, base):
    tensors = peer_files.flap_sam(base)
    tensors["image_encoder.blocks.1.mlp.lin1.weight"] += 0.01
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"a\.pth: 1 tensors that .* keeps frozen differ .*blocks\.1\.mlp\.lin1\.weight"
    ) as caught:
        import_file("flap_sam", tmp_path / "a.pth", tmp_path / "run", base)
    for part in ("sam.pth", "would be lost", "lora_dec_ft", "--base"):
        assert part in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_method_that_would_lose_tensors_is_refused(tmp_path, base):
    torch.save(peer_files.flap_sam(base, prefixes=DECODER), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="flap_sam keeps frozen differ"):
        import_file("flap_sam", tmp_path / "a.pth", tmp_path / "run", base, method="flap_sam")
    run = import_file("flap_sam", tmp_path / "a.pth", tmp_path / "run", base, method="lora_dec_ft").folder.run
    assert run.model.method == "lora_dec_ft"


def test_frozen_frequencies_of_an_adapter_tell_another_base(tmp_path, base):
    tensors = peer_files.samed(base)
    tensors["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] *= 1.5
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="gaussian_matrix.*--base"):
        import_file("samed", tmp_path / "a.pth", tmp_path / "run", base)


# Runs of our own, written for the others.


@pytest.mark.parametrize(
    ("method", "form"),
    [(name, "flap_sam") for name in ("flap_sam", "lora_ft", "lora_dec_ft", "mole", "dora", "dora_frozen", "full_ft",
                                     "dec_ft", "pdec_ft", "attn_ft", "attn_ft_head")]
    + [("samed", "samed"), ("ma_sam", "ma_sam")],
)  # fmt: skip
def test_a_run_of_ours_comes_back_with_its_method(tmp_path, base, method, form):
    folder = trained_run(small(method, classes=2), base, tmp_path)
    export_file(form, folder, tmp_path / "theirs.pth", base)
    again = import_file(form, tmp_path / "theirs.pth", tmp_path / "again", base).folder
    assert again.run.model.method == method
    before, after = folder.tensors(), again.tensors()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def trained_run(run, base, folder):
    """A run folder whose tensors training has moved."""
    from fedpeft.common.files import write_tensors
    from fedpeft.models.checkpoints.start import identity
    from fedpeft.models.initial import fingerprint
    from fedpeft.models.payload import trainable
    from fedpeft.training.server.run_folder import GLOBAL, RunFolder

    model, make = build(run, base), values(5)
    moved = {name: tensor.detach() + make(tensor.shape) for name, tensor in trainable(model).items()}
    out = RunFolder(folder / "run")
    out.start(run, "local", identity(base), fingerprint(model))
    write_tensors(out.path / GLOBAL, moved)
    out.finish(FINISHED)
    return out


@pytest.mark.parametrize(
    ("method", "form", "expected"),
    [
        (
            "flap_sam",
            "samed",
            "a run of flap_sam with sam_small, which SAMed's files cannot hold: use --format flap_sam",
        ),
        ("samed", "flap_sam", "which FLAP-SAM's files cannot hold: use --format samed"),
        ("full_ft", "ma_sam", "which MA-SAM's files cannot hold: use --format flap_sam"),
        ("ma_sam", "samed", "use --format ma_sam"),
        ("ma_sam_tk", "ma_sam", "no format holds it"),
        ("lora_plus", "flap_sam", "no format holds it"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_the_right_one(tmp_path, base, method, form, expected):
    folder = trained_run(small(method, classes=2), base, tmp_path)
    with pytest.raises(ValueError, match=expected):
        export_file(form, folder, tmp_path / "theirs.pth", base)
    assert not (tmp_path / "theirs.pth").exists()


def test_the_authors_loaders_want_pth(tmp_path, base):
    folder = trained_run(small("samed", classes=2), base, tmp_path)
    with pytest.raises(ValueError, match=r"ends in \.pth or \.pt"):
        export_file("samed", folder, tmp_path / "theirs.bin", base)


# MedSAM: a model to start from.


@pytest.fixture(scope="module")
def medical(backbone, tmp_path_factory):
    path = tmp_path_factory.mktemp("medsam") / "medsam.pth"
    torch.save(
        {"model": {f"module.{name}": t for name, t in peer_files.sam(8).items()}, "optimizer": {}, "epoch": 3}, path
    )
    return path


def test_medsam_is_what_the_run_starts_from(tmp_path, base, medical):
    found = import_file("medsam", medical, tmp_path / "run", base, classes=2)
    run = found.folder.run
    assert (run.model.method, run.model.initial, run.model.image_size) == ("full_ft", "medical", 64)
    plain, images = build(run, None), torch.rand(2, 1, 64, 64)
    theirs = {name: t for name, t in peer_files.sam(8).items() if not name.startswith(tuple(SMALL.fresh))}
    plain.load_state_dict(theirs, strict=False)
    model = found.folder.model(medical)
    with torch.no_grad():
        assert torch.equal(model(images), plain.eval()(images))
    assert torch.equal(model.image_encoder.pos_embed, theirs["image_encoder.pos_embed"])
    assert found.folder.description["imported"]["epoch"] == 3


def test_medsam_serves_any_method_and_size(tmp_path, medical):
    run = import_file(
        "medsam", medical, tmp_path / "run", method="flap_sam", image_size=32, labels=("liver",)
    ).folder.run
    assert (run.model.method, run.model.image_size, run.data.labels) == ("flap_sam", 32, ("liver",))


def test_an_import_replaces_no_run(tmp_path, base):
    torch.save(peer_files.samed(base), tmp_path / "a.pth")
    import_file("samed", tmp_path / "a.pth", tmp_path / "run", base)
    before = sha256_of(tmp_path / "run" / "run.json")
    with pytest.raises(FileExistsError, match="holds a run already"):
        import_file("samed", tmp_path / "a.pth", tmp_path / "run", base)
    assert sha256_of(tmp_path / "run" / "run.json") == before


def test_unused_tensors_are_kept_for_the_export_alone(tmp_path, base):
    torch.save(peer_files.flap_sam(base, prefixes=(*OUTPUT, "mask_decoder.iou_prediction_head.")), tmp_path / "a.pth")
    found = import_file("flap_sam", tmp_path / "a.pth", tmp_path / "run", base)
    kept = read_tensors(found.folder.path / FROZEN)
    assert {name.split(".")[1] for name in kept} == {"iou_prediction_head"} and found.rounded == 0

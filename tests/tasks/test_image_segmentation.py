"""Segmentation of images: every SAM method that does not mix slices, Dice at the image's own size, masks as PNG."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_masks import blob, write_small_masks

from fedpeft.config.backbones import BACKBONES
from fedpeft.config.datasets import DATASETS
from fedpeft.config.methods import METHODS
from fedpeft.config.preprocessing import Preprocessing
from fedpeft.config.run import Run, make_run
from fedpeft.config.tasks import task
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Site, read_site
from fedpeft.data.image_masks.masks import read_mask
from fedpeft.data.prepare.pipeline import prepare
from fedpeft.data.sources.image_masks import MaskTree, find_image_masks
from fedpeft.models.initial import build
from fedpeft.models.payload import payload
from fedpeft.study.api import evaluate, load_run
from fedpeft.study.apply.checkpoint import find_checkpoint
from fedpeft.study.apply.inference import infer
from fedpeft.tasks.image_segmentation import ImageSegmentationTask, with_masks
from fedpeft.tasks.mask_metrics import MASK_METRICS, MaskPair
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import Scoring, mean_score
from fedpeft.tasks.types import Stopped
from fedpeft.training.server.in_process import train_in_process

TASK = ImageSegmentationTask()
PREPROCESSING = DATASETS["image_masks"].preprocessing
SUITED = [name for name, entry in METHODS.items() if entry.suits(task("image_segmentation"))]


@pytest.fixture(scope="module")
def lesions(tmp_path_factory) -> Site:
    root = tmp_path_factory.mktemp("lesions")
    source = write_small_masks(root / "source", sites=1, count=12)
    prepare(find_image_masks(MaskTree(source)), root / "data")
    return read_site(root / "data" / "site-1")


@pytest.fixture(scope="module")
def segmenting() -> Run:
    return make_run(
        "flap_sam",
        "image_masks",
        "sam_tiny",
        image_size=32,
        batch=4,
        rounds=2,
        local_epochs=5.0,
        augmentation="none",
        labels=("target",),
    )


@pytest.fixture(scope="module")
def model(segmenting):
    return build(segmenting, None).eval()


def test_all_methods_for_volumes_but_those_that_mix_slices_can_do_it():
    volumes = {name for name, entry in METHODS.items() if entry.suits(task("segmentation"))}
    assert volumes - set(SUITED) == {name for name in volumes if METHODS[name].mixes_slices} >= {"ma_sam", "ma_sam_tk"}
    assert {"flap_sam", "full_ft", "samed", "dora", "mole", "dec_ft", "lora_ft"} <= set(SUITED)
    with pytest.raises(ValueError, match="which ma_sam is not; it mixes neighbouring slices, and an image has none"):
        make_run("ma_sam", "image_masks", "sam_tiny")
    with pytest.raises(ValueError, match="expected a backbone for image_segmentation, which vit_tiny is not"):
        make_run("full_ft", "image_masks", "vit_tiny")
    assert "image_segmentation" not in {name for entry in BACKBONES.values() for name in entry.tasks}


@pytest.mark.parametrize("name", SUITED)
def test_a_method_trains_and_sends_what_it_does_on_volumes(name):
    images, volumes = (make_run(name, dataset, "sam_tiny", image_size=32) for dataset in ("image_masks", "folder"))
    assert payload(images) == payload(volumes)
    with torch.no_grad():
        logits = build(images, None).eval()(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 2, 32, 32) and logits.isfinite().all()


def test_colours_reach_the_network(model):
    grey = torch.rand(1, 1, 32, 32).expand(-1, 3, -1, -1)
    coloured = grey * torch.tensor([1.5, 1.0, 0.5])[:, None, None]
    with torch.no_grad():
        assert torch.equal(model(grey), model(grey[:, :1]))
        assert not torch.allclose(model(grey), model(coloured), atol=1e-3)


def test_scores_are_dice_at_the_images_own_size(model, segmenting, lesions):
    cases = TASK.read(segmenting, lesions, "test", PREPROCESSING)
    scores = TASK.score(model, cases, segmenting, lesions.labels, ("site-1", "test"))
    assert [(item.case, item.label) for item in scores] == [(case.case, "target") for case in lesions.splits["test"]]
    masks = with_masks(model, cases, segmenting, lambda _, mask: mask)
    for item, case, mask in zip(scores, lesions.splits["test"], masks, strict=True):
        truth = read_mask(case.label)
        assert mask.shape == truth.shape == (40, 56)
        both, total = (mask.numpy() & truth).sum(), mask.numpy().sum() + truth.sum()
        assert item.value == pytest.approx(2 * both / total if total else 1.0)


def test_further_metrics_are_in_pixels_and_masks_are_kept(model, segmenting, lesions, tmp_path):
    cases, kept = TASK.read(segmenting, lesions, "test", PREPROCESSING), {}
    scoring = Scoring(("hd95", "nsd"), 2.0, lambda case, prediction: kept.setdefault(case, prediction))
    scores = TASK.score(model, cases, segmenting, lesions.labels, ("site-1", "test"), scoring=scoring)
    assert [item.case for item in scores] == list(kept) == [case.case for case in lesions.splits["test"]]
    for item, case in zip(scores, lesions.splits["test"], strict=True):
        kept[case.case].write(tmp_path / f"{case.case}{TASK.kept_as}")
        masks = read_mask(tmp_path / f"{case.case}.png") == 1, read_mask(case.label) == 1
        pair = MaskPair(*masks, (1.0, 1.0), 2.0)
        assert item.others == {name: MASK_METRICS[name].of(pair) for name in ("hd95", "nsd")}
    assert TASK.length == "px"


@pytest.mark.parametrize("fit", ["aspect", "stretch"])
def test_a_perfect_network_finds_the_mask(fit, segmenting, lesions):
    """What is fitted to the square comes back to its place: a network whose logits are brightness and darkness."""

    class Darkness(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            # Halfway between the red of skin and that of a lesion.
            bright = (images[:, 0] - 0.66) * self.weight
            return torch.stack([bright, -bright], dim=1)

    site = lesions
    run = segmenting.with_(image_size=96)
    preprocessing = Preprocessing(scope="volume", foreground=None, scale="minmax", clip=None, fit=fit)
    scores = TASK.score_site(Darkness(), site, "training", run, preprocessing)
    assert len(scores) == len(site.splits["training"]) and min(item.value for item in scores) > 0.95


def test_images_that_do_not_fit_into_memory_have_the_same_pixels(segmenting, lesions):
    roomy, small = (
        TASK.read(segmenting, lesions, "training", PREPROCESSING, cache=cache) for cache in (Cache(), Cache(memory=0))
    )
    for mine, other in zip(roomy, small, strict=True):
        assert torch.equal(mine.pixels, other.pixels) and torch.equal(mine.label, other.label)


def test_a_file_gets_a_mask_of_its_own_size_and_counts_of_pixels(model, segmenting, tmp_path):
    pixels, _ = blob(5, 33, 47)
    for name, mode in (("colour.jpg", "RGB"), ("grey.png", "L")):
        Image.fromarray(pixels).convert(mode).save(tmp_path / name)
        prediction = TASK.predict(model, tmp_path / name, segmenting, PREPROCESSING)
        assert prediction.value.shape == (33, 47) and prediction.value.dtype == np.uint8
        written = prediction.write(tmp_path / "made" / "mask.png")
        found = read_mask(tmp_path / "made" / "mask.png")
        np.testing.assert_array_equal(found, prediction.value)
        assert written.values == {"mask": str(tmp_path / "made" / "mask.png"), "pixels": {"target": int(found.sum())}}
        assert f"target {int(found.sum()):,} pixels of 1,551" in written.sentence


def test_a_case_without_a_mask_and_a_stop_are_told(model, segmenting, lesions, tmp_path):
    content = json.loads((lesions.root / "datalist.json").read_text())
    for entry in content["test"]:
        del entry["label"]
        (tmp_path / "s" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / entry["image"]).write_bytes((lesions.root / entry["image"]).read_bytes())
    (tmp_path / "s" / "datalist.json").write_text(json.dumps(content))
    cases = TASK.read(segmenting, read_site(tmp_path / "s"), "test", PREPROCESSING)
    with pytest.raises(ValueError, match="case ISIC_.* has no label; it can be inferred, not scored"):
        TASK.score(model, cases, segmenting, lesions.labels, ("s", "test"))
    with pytest.raises(Stopped):
        with_masks(model, cases, segmenting, lambda _, mask: mask, lambda: True)


def test_training_lowers_the_loss_and_beats_the_untrained_model(segmenting, lesions, tmp_path):
    checkpoint = find_checkpoint(segmenting, None)
    folder = train_in_process(segmenting, [lesions], checkpoint, tmp_path / "run", "local")
    losses = [record["sites"]["site-1"]["loss"] for record in folder.rounds()]
    assert losses[1] < losses[0]
    before, after = (
        mean_score(task_of(segmenting).score_site(model, lesions, "training", segmenting, segmenting.preprocessing))
        for model in (build(segmenting, checkpoint), folder.model(checkpoint))
    )
    assert after > before + 0.2
    # The run folder serves the commands like any other.
    found = evaluate(folder.path, lesions.root.parent, "training")
    assert found["dice"] == pytest.approx(after) and found["sites"]["site-1"]["classes"] == {"target": found["dice"]}
    image = lesions.splits["training"][0].image
    assert load_run(folder.path).predict(image).shape == (40, 56)
    assert infer(folder, image, tmp_path / "mask.png", checkpoint).values["pixels"]["target"] > 0
    with pytest.raises(ValueError, match="expected a name that ends in .png"):
        infer(folder, image, tmp_path / "mask.nii.gz", checkpoint)
    with pytest.raises(ValueError, match="this run segments images .JPEG or PNG.; ct.nii.gz is a volume .NIfTI."):
        infer(folder, Path("ct.nii.gz"), tmp_path / "mask.nii.gz", checkpoint)

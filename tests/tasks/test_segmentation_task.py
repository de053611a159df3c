"""Segmentation: the loss by its formula, volumes that are read, and the prediction of one file."""

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from torch.nn.functional import interpolate

from fedpeft.config.datasets import DATASETS
from fedpeft.config.preprocessing import PREPROCESSINGS
from fedpeft.config.run import make_run
from fedpeft.data.cache import Cache
from fedpeft.models.initial import build
from fedpeft.tasks import segmentation
from fedpeft.tasks.mask_metrics import MASK_METRICS, MaskPair
from fedpeft.tasks.scores import Scoring
from fedpeft.tasks.segmentation import SegmentationTask, labels_of_size, make_loss

TASK = SegmentationTask()
PREPROCESSING = DATASETS["phantom"].preprocessing


def by_formula(logits, labels, weight):
    """(1 - weight) CE + weight (1 - mean_c 2 sum p g / (sum p^2 + sum g^2)) with sums over the whole batch, float64."""
    logits = logits.double()
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    g = torch.stack([(labels == c).double() for c in range(logits.shape[1])], 1)
    ce = -(g * p.log()).sum(1).mean()
    over = (0, 2, 3)
    dice = (2 * (p * g).sum(over) + 1e-5) / ((p**2).sum(over) + (g**2).sum(over) + 1e-5)
    return float((1 - weight) * ce + weight * (1 - dice).mean())


@pytest.mark.parametrize("weight", [0.8, 0.0, 1.0])
@pytest.mark.parametrize("empty", [False, True])
def test_the_loss_is_the_papers(run, weight, empty):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 1 if empty else 3, (4, 8, 8), generator=generator)
    labels[1] = 0
    found = make_loss(run.with_(dice_weight=weight))(logits, labels)
    assert float(found) == pytest.approx(by_formula(logits, labels, weight), rel=1e-5)


@pytest.mark.parametrize(("before", "after"), [(512, 128), (96, 24), (33, 9), (8, 32), (16, 1)])
def test_labels_of_another_size_are_scipys_zoom(before, after):
    labels = torch.randint(0, 9, (2, before, before), generator=torch.Generator().manual_seed(0))
    expected = zoom(labels.numpy(), (1, after / before, after / before), order=0)
    assert np.array_equal(labels_of_size(labels, after, after).numpy(), expected)
    assert labels_of_size(labels, before, before) is labels


def test_the_loss_of_small_logits_is_that_of_small_labels(run):
    generator = torch.Generator().manual_seed(0)
    logits, labels = (torch.randn(2, 3, 8, 8, generator=generator), torch.randint(0, 3, (2, 32, 32)))
    small = torch.from_numpy(zoom(labels.numpy(), (1, 0.25, 0.25), order=0))
    assert torch.equal(make_loss(run)(logits, labels), make_loss(run)(logits, small))


def test_the_loss_is_computed_at_the_decoders_size_where_asked():
    """SAMed's: its 4x decoder has a quarter of the input's size, and only training stops there."""
    run = make_run("samed", "phantom", "sam_tiny", classes=2, image_size=64)
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    wide, small = (build(run.with_(loss_size=size), None) for size in ("input", "decoder"))
    assert wide.train()(images).shape == wide.eval()(images).shape == (2, 3, 64, 64)
    assert torch.equal(wide.train()(images), wide.eval()(images))
    logits = small.train()(images)
    # sam_tiny's patch is 8 pixels, and the decoder enlarges its grid by 4.
    assert logits.shape == (2, 3, 32, 32)
    assert torch.equal(small.eval()(images), wide(images))
    large = interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(large, wide(images))


def test_a_decoder_that_reaches_the_inputs_size_trains_there_anyway():
    run = make_run("flap_sam", "phantom", "sam_tiny", classes=2, image_size=32, loss_size="decoder")
    assert build(run, None).train()(torch.rand(1, 1, 32, 32)).shape == (1, 3, 32, 32)


def test_the_run_weighs_as_the_paper(run):
    assert run.training.dice_weight == 0.8


def test_the_loss_is_the_same_at_every_site(run):
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    assert torch.equal(TASK.loss(run, None)(logits, labels), make_loss(run)(logits, labels))


def test_volumes_that_do_not_fit_into_memory_have_the_same_voxels(run, site):
    asked = []
    given = run, site, "training", PREPROCESSING, lambda: asked.append(0)
    roomy, small = TASK.read(*given, Cache()), TASK.read(*given, Cache(memory=0))
    assert [name for name, _ in small] == [case.case for case in site.splits["training"]]
    for (_, mine), (_, other) in zip(roomy, small, strict=True):
        assert torch.equal(mine.image, other.image) and torch.equal(mine.label, other.label)
    assert len(asked) == 2 * len(small)
    assert TASK.normalised_by(small) == "site"


def test_a_file_gets_a_mask_on_its_own_grid_and_counts_of_voxels(run, site, tmp_path):
    image = site.splits["test"][0].image
    prediction = TASK.predict(build(run, None).eval(), image, run, PREPROCESSING)
    out = tmp_path / "made" / "mask.nii.gz"
    written = prediction.write(out)
    mask = nibabel.load(out)
    assert mask.shape == nibabel.load(image).shape
    found = np.asarray(mask.dataobj)
    assert written.values == {
        "mask": str(out),
        "voxels": {"organ": int((found == 1).sum()), "lesion": int((found == 2).sum())},
        "normalised_by": "volume",
    }
    assert "normalised by the volume's own statistics" in written.sentence


def test_one_prediction_of_a_volume_is_scored_and_kept(run, site, monkeypatch):
    predicted, kept = [], []

    def once(model, volume, *rest):
        predicted.append(volume.case)
        return torch.roll(volume.label, (1, -2, 1), (0, 1, 2))

    monkeypatch.setattr(segmentation, "predict_mask", once)
    cases, where = TASK.read(run, site, "training", PREPROCESSING), (site.name, "training")
    scoring = Scoring(("hd95", "assd", "nsd"), 1.5, lambda case, prediction: kept.append((case, prediction)))
    scores = TASK.score(build(run, None), cases, run, site.labels, where, scoring=scoring)
    names = [case for case, _ in cases]
    assert predicted == [case for case, _ in kept] == names and len(names) == 2
    assert [(item.case, item.label) for item in scores] == [
        (case, label) for case in names for label in ("organ", "lesion")
    ]
    for (_, volume), (_, prediction), organ in zip(cases, kept, scores[::2], strict=True):
        assert torch.equal(prediction.mask, once(None, volume))
        masks = (prediction.mask == 1).numpy(), (volume.label == 1).numpy()
        assert len(set(volume.spacing)) > 1
        pair = MaskPair(*masks, volume.spacing, 1.5)
        assert organ.others == {name: MASK_METRICS[name].of(pair) for name in ("hd95", "assd", "nsd")}
        assert organ.others["hd95"] > 0 and organ.empty == ""


def test_the_padding_of_a_canvas_is_no_part_of_the_image(run, site, monkeypatch):
    """A mask that ends at the file's border has surface there, and the diagonal is the file's own."""
    case = site.splits["test"][0]
    height, width, depth = nibabel.load(case.image).shape
    canvas = PREPROCESSING.model_copy(update={"canvas": (height + 9, width + 4)})
    (name, volume), *_ = TASK.read(run, site, "test", canvas)
    assert tuple(volume.label.shape) == (height + 9, width + 4, depth)
    monkeypatch.setattr(segmentation, "predict_mask", lambda *given: torch.zeros_like(volume.label))
    scoring = Scoring(("hd95",))
    organ, _ = TASK.score(build(run, None), [(name, volume)], run, site.labels, ("s", "test"), scoring=scoring)
    size = np.multiply((height, width, depth), volume.spacing)
    assert (organ.empty, organ.others) == ("prediction", {"hd95": pytest.approx(float(np.linalg.norm(size)))})


@pytest.mark.parametrize(
    ("preprocessing", "by", "words"),
    [("samed", "constants", "published constants"), ("authors", "volume", "the volume's own statistics")],
)
def test_a_file_of_no_site_says_what_normalised_it(run, site, tmp_path, preprocessing, by, words):
    image, used = site.splits["test"][0].image, PREPROCESSINGS[preprocessing]
    written = TASK.predict(build(run, None).eval(), image, run, used).write(tmp_path / "mask.nii.gz")
    assert written.values["normalised_by"] == by and f"normalised by {words}" in written.sentence


def test_a_site_trains_and_validates_as_published(run, site):
    authors = run.with_(preprocessing="authors", stack_ends="repeat", stride=1, augmentation="ma_sam", batch=3)
    data = TASK.training_data(authors, site, lambda: None, Cache())
    images, labels = next(data.epoch(0))
    # Whole stacks, in which nothing but the cubic resize exceeds 0 to 1.
    assert len(images) % 5 == 0 and images.shape[2:] == labels.shape[1:] == (32, 32)
    assert -0.3 < images.min() and images.max() < 1.3
    assert data.slices() == sum(len(volume.label) for volume in data.volumes) > 0
    cases = TASK.read(authors, site, "validation", authors.preprocessing)[:1]
    assert cases[0][1].preprocessing == authors.preprocessing and TASK.normalised_by(cases) == "volume"
    scores = TASK.score(build(authors, None), cases, authors, site.labels, ("site-1", "validation"))
    assert len(scores) == 2 and all(0 <= score.value <= 1 for score in scores)

"""Segmentation: the loss by its formula, volumes that are read, and the prediction of one file."""

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from torch.nn.functional import interpolate

from fedpeft.config.datasets import DATASETS
from fedpeft.config.run import make_run
from fedpeft.data.cache import Cache
from fedpeft.models.initial import build
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

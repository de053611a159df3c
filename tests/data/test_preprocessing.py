"""Each step of the preprocessing by itself, and the published ones, against plain numpy."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from sources import IXI_AFFINE, volume
from toy import LABELS, arrays

from fedpeft.config.datasets import DATASETS, Preprocessing
from fedpeft.data.datalist import Case
from fedpeft.data.volumes.fit import fit, unfit
from fedpeft.data.volumes.normalise import Statistics, normalise, statistics_of
from fedpeft.data.volumes.volume import read_volume, save_mask, site_statistics, to_original_grid

ALL = Preprocessing(foreground=None, clip=None)
BRAIN = {0: "background", 1: "brain"}
KITS, IXI, PROSTATE = (DATASETS[name].preprocessing for name in ("kits19", "ixi", "prostate"))


@pytest.fixture
def images() -> list[np.ndarray]:
    return [arrays((9, 8, 7), seed)[0].astype(np.float32) * (seed + 1) - 300 for seed in range(3)]


def joined(images: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([image.ravel() for image in images]).astype(np.float64)


def test_kits_clips_to_the_sites_percentiles_then_z_scores(images: list[np.ndarray]) -> None:
    low, high = np.percentile(joined(images), (5, 95))
    clipped = np.clip(joined(images), low, high)
    found = statistics_of(images, KITS)
    np.testing.assert_allclose(
        (found.low, found.high, found.mean, found.std), (low, high, clipped.mean(), clipped.std()), rtol=1e-9
    )
    assert found.cases == 3 and found.rule == "mean and std of all voxels clipped to p5 and p95"
    expected = (np.clip(images[1], low, high) - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(normalise(images[1], found, KITS), expected, atol=1e-5)


def test_the_prostate_has_zero_mean_and_unit_variance_per_site(images: list[np.ndarray]) -> None:
    found = statistics_of(images, PROSTATE)
    scores = joined([normalise(image, found, PROSTATE) for image in images])
    np.testing.assert_allclose((scores.mean(), scores.std()), (0, 1), atol=1e-6)
    assert (found.low, found.high) == (None, None)


def test_ixi_goes_from_zero_to_one_by_itself(images: list[np.ndarray]) -> None:
    for image in images:
        scores = normalise(image, statistics_of([image], IXI), IXI)
        np.testing.assert_allclose(scores, (image - image.min()) / (image.max() - image.min()), atol=1e-6)
        assert (scores.min(), scores.max(), scores.dtype) == (0, 1, np.float32)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, lambda x: (x - x.mean()) / x.std()),
        ({"clip": (-1.0, 1.0)}, lambda x: np.clip((x - x.mean()) / x.std(), -1, 1)),
        ({"scale": "minmax"}, lambda x: (x - x.min()) / np.ptp(x)),
        ({"percentiles": (10.0, 80.0), "scale": "minmax"},
         lambda x: np.clip((x - np.percentile(x, 10)) / np.ptp(np.percentile(x, (10, 80))), 0, 1)),
        ({"foreground": 0.2, "percentile": 100.0},
         lambda x: (x - x[x > x.min() + 0.2 * np.ptp(x)].mean()) / x[x > x.min() + 0.2 * np.ptp(x)].std()),
        ({"foreground": 0.2, "percentile": 100.0, "percentiles": (0.0, 50.0), "scale": "minmax"},
         lambda x: (np.clip(x, x[x > x.min() + 0.2 * np.ptp(x)].min(), np.median(x[x > x.min() + 0.2 * np.ptp(x)]))
                    - x[x > x.min() + 0.2 * np.ptp(x)].min())
         / (np.median(x[x > x.min() + 0.2 * np.ptp(x)]) - x[x > x.min() + 0.2 * np.ptp(x)].min())),
    ],
    ids=["plain", "clip", "minmax", "percentiles", "foreground", "all"],
)  # fmt: skip
def test_every_step_is_a_switch(changes: dict, expected: Callable, images: list[np.ndarray]) -> None:
    preprocessing = ALL.model_copy(update=changes)
    found = normalise(images[0], statistics_of(images[:1], preprocessing), preprocessing)
    np.testing.assert_allclose(found, expected(images[0].astype(np.float64)), atol=1e-5)


def test_statistics_survive_json_and_must_have_what_their_rule_needs(images: list[np.ndarray]) -> None:
    for preprocessing in (ALL, KITS, IXI):
        found = statistics_of(images, preprocessing)
        assert Statistics.from_dict(found.to_dict()) == found
    assert "low" not in statistics_of(images, ALL).to_dict()
    kept = statistics_of(images, KITS).to_dict()
    for change in ({"low": 1e9}, {"low": float("nan")}, {"low": "1"}, {"high": True}):
        with pytest.raises(ValueError, match="^statistics are"):
            Statistics.from_dict(kept | change)
    bare = Statistics.from_dict({name: kept[name] for name in ("mean", "std", "cases", "rule")})
    with pytest.raises(ValueError, match="prepare the data again"):
        normalise(images[0], bare, KITS)
    with pytest.raises(ValueError, match="no variation in 1 images"):
        statistics_of([np.ones((3, 3, 3), np.float32)], KITS)


def test_a_volume_without_its_sites_statistics_takes_its_own(make_case: Callable[..., Case]) -> None:
    cases = [make_case(str(seed), image=arrays((9, 8, 7), seed)[0] * (seed + 1)) for seed in range(2)]
    statistics = site_statistics(cases, KITS)
    at_site = read_volume(replace(cases[0], statistics=statistics), LABELS, KITS)
    alone = read_volume(cases[0], LABELS, KITS)
    assert (at_site.normalised, alone.normalised) == ("site", "volume")
    assert at_site.statistics == statistics != alone.statistics == site_statistics(cases[:1], KITS)
    assert read_volume(replace(cases[0], statistics=statistics), LABELS, IXI).normalised == "volume"


@pytest.fixture
def brain(tmp_path: Path) -> Case:
    """83 x 44 x 55 voxels, as IXI-Tiny's files are."""
    image, label = volume("brain", (83, 44, 55), 1)
    case = Case("brain", tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    nibabel.save(nibabel.Nifti1Image(image, IXI_AFFINE), case.image)
    nibabel.save(nibabel.Nifti1Image(label, IXI_AFFINE), case.label)
    return case


def test_ixi_slices_are_padded_to_their_canvas_with_zeros(brain: Case) -> None:
    found = read_volume(brain, BRAIN, IXI)
    assert tuple(found.image.shape) == tuple(found.label.shape) == (64, 64, 83)
    assert found.content == (slice(10, 54), slice(4, 59))
    np.testing.assert_allclose(found.spacing, (4.13, 3.95, 2.18), rtol=1e-6)
    stored = np.asanyarray(nibabel.load(brain.image).dataobj).transpose(1, 2, 0).astype(np.float64)
    inside = np.zeros((64, 64, 83), bool)
    inside[10:54, 4:59] = True
    scaled = (stored - stored.min()) / np.ptp(stored)
    np.testing.assert_allclose(found.image.numpy()[inside].reshape(stored.shape), scaled, atol=1e-6)
    assert not found.image.numpy()[~inside].any() and not found.label.numpy()[~inside].any()
    # A voxel stays where it is in the body.
    place = found.affine @ (10 + 3, 4 + 7, 20, 1)
    np.testing.assert_allclose(place, IXI_AFFINE @ (20, 3, 7, 1), atol=1e-4)


def test_a_mask_comes_back_from_the_canvas(brain: Case, tmp_path: Path) -> None:
    found = read_volume(brain, BRAIN, IXI)
    # To the network's square and back, as a prediction goes.
    square = fit(found.label.permute(2, 0, 1).contiguous(), found.spacing[:2], 224, "label")
    logits = torch.nn.functional.one_hot(square.long(), 2).permute(0, 3, 1, 2).float()
    mask = unfit(logits, (64, 64), found.spacing[:2]).argmax(1).to(torch.uint8).permute(1, 2, 0)
    assert torch.equal(mask, found.label)
    save_mask(tmp_path / "mask.nii.gz", mask, found)
    saved, truth = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(brain.label)
    assert saved.shape == (83, 44, 55)
    np.testing.assert_array_equal(saved.affine, truth.affine)
    np.testing.assert_array_equal(np.asanyarray(saved.dataobj), np.asanyarray(truth.dataobj))
    with pytest.raises(ValueError, match=r"mask has shape \(44, 55, 83\), expected \(64, 64, 83\)"):
        to_original_grid(found.label[found.content], found)


def test_the_canvas_is_padded_with_the_minimum_and_a_larger_slice_is_refused(brain: Case) -> None:
    padded = read_volume(brain, BRAIN, PROSTATE.model_copy(update={"canvas": (45, 58)}))
    assert padded.content == (slice(0, 44), slice(1, 56)) and float(padded.image[44].unique()) == padded.image.min() < 0
    plain = read_volume(brain, BRAIN, IXI.model_copy(update={"canvas": None}))
    assert tuple(plain.image.shape) == (44, 55, 83)
    with pytest.raises(ValueError, match=r"image.nii.gz: slices have 44 x 55 voxels, the data set's canvas 64 x 54"):
        read_volume(brain, BRAIN, IXI.model_copy(update={"canvas": (64, 54)}))

"""The reference implementations do the same as ours: the same masks, the same slices, five times as often."""

from collections import Counter

import pytest
import torch
from bench_epoch import PREPROCESSING
from bench_evaluation import deviations, noise
from reference_epoch import ReferenceStacks, reference_batches, reference_probabilities
from reference_step import reference_model

from fedpeft.config.run import make_run
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import read_site
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.tasks.segmentation import SegmentationTask
from fedpeft.tasks.volume_masks import predict_mask

RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, image_size=64, batch=3)
TASK = SegmentationTask()


@pytest.mark.parametrize("depth", [3, 5, 11])
def test_masks_are_those_of_five_overlapping_stacks(depth):
    model = build(RUN, shipped(RUN.backbone)).eval()
    volume = noise(depth, 80)
    found = predict_mask(model, volume, RUN)
    assert len(found.unique()) > 1
    compared = deviations(reference_probabilities(reference_model(model), volume, RUN), found)
    assert compared["differing"] <= 1e-5 and compared["largest_gap"] < 1e-5


def test_the_same_slices_five_times_as_often(small_phantom, tmp_path):
    site = read_site(small_phantom / "site-1")
    run = RUN.with_(background_ratio=1000)
    volumes = [volume for _, volume in TASK.read(RUN, site, "training", PREPROCESSING)]
    samples, data = ReferenceStacks(volumes, tmp_path, run), TASK.training_data(run, site, lambda: None, Cache())
    for index, volume in enumerate(volumes):
        depth = volume.image.shape[2]
        seen = Counter(
            start + offset for case, start in samples.data if case == index for offset in range(run.data.stack)
        )
        assert set(seen) == set(range(depth))
        assert all(seen[place] == run.data.stack for place in range(run.data.stack - 1, depth - run.data.stack + 1))
    assert sum(len(images) for images, _ in data.epoch(0)) == sum(volume.image.shape[2] for volume in volumes)


def test_reference_batches_have_our_shapes_and_values(small_phantom, tmp_path):
    site = read_site(small_phantom / "site-1")
    volumes = [volume for _, volume in TASK.read(RUN, site, "training", PREPROCESSING)]
    samples, data = ReferenceStacks(volumes, tmp_path, RUN), TASK.training_data(RUN, site, lambda: None, Cache())
    images, labels = next(reference_batches(samples, RUN, 0))
    ours, our_labels = next(data.epoch(0))
    assert images.shape == (15, 1, 64, 64) and images.shape[1:] == ours.shape[1:] and images.dtype == ours.dtype
    assert labels.shape == (15, 64, 64) and labels.dtype == our_labels.dtype
    assert set(labels.unique().tolist()) <= {0, 1, 2} and torch.isfinite(images).all()


def test_plain_slices_are_fitted_as_ours_are(small_phantom, tmp_path):
    site = read_site(small_phantom / "site-1")
    volumes = [volume for _, volume in TASK.read(RUN, site, "training", PREPROCESSING)]
    samples, data = ReferenceStacks(volumes, tmp_path, RUN), TASK.training_data(RUN, site, lambda: None, Cache())
    samples.transform = lambda sample: sample
    known = {image.numpy().tobytes() for volume in data.volumes for image in volume.image}
    assert {image.numpy().tobytes() for sample in samples for image in sample["image"]} <= known

"""What the published codes do to a volume, end to end, against plain numpy and scipy; and where stacks lie."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from toy import LABELS

from fedpeft.config.datasets import DATASETS, KITS19_WINDOWS
from fedpeft.config.preprocessing import PREPROCESSINGS, Preprocessing, Window
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Case
from fedpeft.data.volumes.fit import stretch, unstretch
from fedpeft.data.volumes.positions import ENDS, positions
from fedpeft.data.volumes.slices import fit_slices
from fedpeft.data.volumes.stacks import StackData, read_slices
from fedpeft.data.volumes.volume import Volume, read_volume

KITS = DATASETS["kits19"].published["authors"]
SHAPE = (40, 34, 9)


def published(name: str, dataset: str) -> Preprocessing:
    return DATASETS[dataset].preprocessing_called(name)


@pytest.fixture
def scan(make_case: Callable[..., Case]) -> Case:
    """A CT-like volume: air, fat, muscle, bone, and a kidney with a tumour."""
    rng = np.random.default_rng(0)
    image = np.full(SHAPE, -1000.0)
    image[4:36, 4:30] = -90
    image[8:32, 7:27] = 55
    image[18:22, 8:12] = 700
    image[12:20, 17:25, 2:7] = 170
    image[13:16, 18:21, 3:5] = 90
    label = np.zeros(SHAPE, np.uint8)
    label[12:20, 17:25, 2:7] = 1
    label[13:16, 18:21, 3:5] = 2
    image = (image + rng.normal(0, 12, SHAPE)).astype(np.int16)
    return replace(make_case(image=image, label=label, affine=np.diag([0.8, 0.8, 3.0, 1.0])), site="site-A")


def stored(volume: Volume, case: Case, preprocessing: Preprocessing) -> np.ndarray:
    """The file's voxels in the volume's axes, before anything is done to them."""
    plain = replace(case, site="")
    unit = Preprocessing(scope="volume", foreground=None, clip=None, scale="minmax", canvas=preprocessing.canvas)
    found = read_volume(plain, LABELS, unit)
    statistics = found.statistics
    return found.image.double().numpy() * (statistics.high - statistics.low) + statistics.low


def by_hand(voxels: np.ndarray, clip: tuple[float, float], size: int, centre: int) -> np.ndarray:
    """A stack of five as the published code feeds it: clipped, ends repeated, min-max, cubic zoom to the square."""
    clipped = np.clip(voxels, *clip).astype(np.float32)
    padded = np.concatenate([clipped[..., :1]] * 2 + [clipped] + [clipped[..., -1:]] * 2, axis=-1)
    part = padded[..., centre : centre + 5]
    part = (part - part.min()) / (part.max() - part.min() + 1e-8)
    return zoom(part, (size / part.shape[0], size / part.shape[1], 1.0), order=3).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("dataset", "name", "clip"),
    [
        ("kits19", "authors", lambda voxels: (-66.0, 208.0)),
        ("prostate", "authors", lambda voxels: (voxels.min(), np.quantile(voxels, 0.99))),
        ("folder", "authors", lambda voxels: (voxels.min(), np.quantile(voxels, 0.99))),
        ("folder", "ma_sam", lambda voxels: (-200.0, 250.0)),
    ],
)
@pytest.mark.parametrize("size", [64, 32])
def test_a_stack_is_the_published_codes(scan: Case, dataset: str, name: str, clip, size: int) -> None:
    preprocessing = published(name, dataset)
    volume = read_volume(scan, LABELS, preprocessing)
    voxels = stored(volume, scan, preprocessing)
    slices = fit_slices(volume, size)
    for centre in range(SHAPE[2]):
        expected = by_hand(voxels, clip(voxels), size, centre)
        np.testing.assert_allclose(slices.stack(positions(centre - 2, 5)).numpy(), expected, atol=2e-5)


def test_samed_clips_to_its_constants_and_keeps_each_slice(scan: Case) -> None:
    preprocessing = published("samed", "folder")
    volume = read_volume(scan, LABELS, preprocessing)
    voxels, slices = stored(volume, scan, preprocessing), fit_slices(volume, 64)
    expected = zoom((np.clip(voxels[..., 4], -125, 275) + 125) / 400, (64 / 40, 64 / 34), order=3)
    np.testing.assert_allclose(slices.image[4].numpy(), expected, atol=2e-5)
    assert slices.limits is None and torch.equal(slices.stack(np.array([4, 4])), slices.image[[4, 4]])


@pytest.mark.parametrize("window", KITS19_WINDOWS, ids=lambda window: window.site)
def test_each_kits_site_has_its_constants(scan: Case, window: Window) -> None:
    volume = read_volume(replace(scan, site=window.site), LABELS, KITS)
    assert (volume.normalised, volume.statistics) == ("constants", None)
    expected = (np.array([window.low, window.high]) - window.mean) / window.std
    np.testing.assert_allclose([volume.image.min(), volume.image.max()], expected, rtol=1e-5)


@pytest.mark.parametrize("site", ["", "hospital"])
def test_another_site_takes_the_mean_of_the_six(scan: Case, site: str) -> None:
    volume = read_volume(replace(scan, site=site), LABELS, KITS)
    assert (volume.normalised, volume.statistics) == ("constants", None)
    low, high, mean, std = -442 / 6, 1600 / 6, 602.676 / 6, 433.444 / 6
    np.testing.assert_allclose(
        [volume.image.min(), volume.image.max()], [(low - mean) / std, (high - mean) / std], rtol=1e-3
    )


def test_constants_make_a_kidney_stand_out(scan: Case) -> None:
    contrasts = []
    for preprocessing in (DATASETS["kits19"].preprocessing, KITS):
        volume = read_volume(scan, LABELS, preprocessing)
        voxels = stored(volume, scan, preprocessing)
        muscle = volume.image[torch.from_numpy((voxels > 10) & (voxels < 100)) & (volume.label == 0)]
        contrasts.append(float((volume.image[volume.label == 1].mean() - muscle.mean()) / volume.image.std()))
    assert contrasts[0] < 0.4 and contrasts[1] > 1


@pytest.mark.parametrize("native", [(40, 34), (96, 130), (512, 512), (7, 5)])
@pytest.mark.parametrize("size", [64, 224])
def test_stretched_slices_are_scipys_and_come_back(native: tuple[int, int], size: int) -> None:
    rng = np.random.default_rng(0)
    image, label = rng.random(native).astype(np.float32), rng.integers(0, 3, native).astype(np.uint8)
    image[0, 0] = 0
    factors = size / native[0], size / native[1]
    for values, order, mode in ((image, 3, "image"), (label, 0, "label")):
        found = stretch(torch.from_numpy(values)[None], (9.0, 1.0), size, mode)
        np.testing.assert_allclose(found[0].numpy(), zoom(values, factors, order=order), atol=1e-5)
    probabilities = rng.random((size, size)).astype(np.float32)
    expected = zoom(probabilities, (native[0] / size, native[1] / size), order=3)
    back = unstretch(torch.from_numpy(probabilities).expand(2, 3, -1, -1), native, (9.0, 1.0))
    assert back.shape == (2, 3, *native)
    np.testing.assert_allclose(back[1, 2].numpy(), expected, atol=1e-5)


def test_a_square_of_the_right_size_stays() -> None:
    image = torch.rand(3, 64, 64)
    assert stretch(image, (1.0, 1.0), 64, "image") is image
    with pytest.raises(ValueError, match="mode is 'mask'"):
        stretch(image, (1.0, 1.0), 64, "mask")


def test_padding_belongs_to_a_stacks_range(scan: Case) -> None:
    preprocessing = published("ma_sam", "folder").model_copy(update={"fit": "aspect"})
    volume = read_volume(scan, LABELS, preprocessing)
    volume = replace(volume, image=volume.image + torch.arange(9) / 10)
    for start in range(-2, 7):
        stack = fit_slices(volume, 64).stack(positions(start, 5))
        assert 0 <= stack.min() and stack.max() <= 1


def test_a_stack_of_one_intensity_is_zero(scan: Case) -> None:
    volume = replace(read_volume(scan, LABELS, KITS), image=torch.full(SHAPE, 3.0))
    assert not fit_slices(volume, 32).stack(positions(0, 5)).any()


@pytest.mark.parametrize("depth", [1, 3, 5, 12])
@pytest.mark.parametrize("stack", [1, 4, 5])
def test_stacks_with_repeated_ends(depth: int, stack: int) -> None:
    found = ENDS["repeat"].training(depth, stack, 1, 0)
    assert found.tolist() == ENDS["repeat"].covering(depth, stack, 1).tolist() and len(found) == depth
    np.testing.assert_array_equal(positions(found, stack)[:, stack // 2], np.arange(depth))
    for stride in range(2, stack + 1):
        for offset in range(stride):
            centres = ENDS["repeat"].training(depth, stack, stride, offset) + stack // 2
            assert centres.tolist() == list(range(min(offset, depth - 1), depth, stride))


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("depth", [1, 2, 4, 5, 6, 11])
@pytest.mark.parametrize(("stack", "stride"), [(1, 1), (3, 2), (4, 4), (5, 1), (5, 3), (5, 5)])
def test_every_slice_is_predicted(ends: str, depth: int, stack: int, stride: int) -> None:
    covered = positions(ENDS[ends].covering(depth, stack, stride), stack)
    assert {*range(depth)} <= {*covered.ravel().tolist()}
    if ends == "inside" and depth >= stack:
        assert covered.min() == 0 and covered.max() == depth - 1


@pytest.mark.parametrize("augmentation", ["none", "ma_sam"])
def test_an_epoch_has_as_many_stacks_as_slices_and_keeps_the_repeated_ones(scan: Case, augmentation: str) -> None:
    cases = [scan, replace(scan, site="site-B")]
    options = {"batch": 4, "stride": 1, "background_ratio": 100.0, "ends": "repeat", "augmentation": augmentation}
    data = StackData(cases, LABELS, KITS, 32, **options)
    batches = list(data.epoch(3))
    assert data.slices() == 18 and sum(len(images) for images, _ in batches) == 18 * 5
    assert all(images.shape[1:] == (1, 32, 32) and labels.dtype == torch.int64 for images, labels in batches)
    assert all(torch.isfinite(images).all() for images, _ in batches)
    again = list(data.epoch(3))
    assert all(
        torch.equal(first, second)
        for one, two in zip(batches, again, strict=True)
        for first, second in zip(one, two, strict=True)
    )
    if augmentation == "none":
        stacks = {image.numpy().tobytes() for images, _ in batches for image in images.unflatten(0, (-1, 5))}
        expected = [volume.stack(positions(c - 2, 5)) for volume in data.volumes for c in range(9)]
        assert stacks == {stack.numpy().tobytes() for stack in expected}


def test_the_cache_tells_sites_and_ranges_apart(scan: Case) -> None:
    cache, kept = Cache(), KITS.model_copy(update={"stack_range": "kept"})
    found = [
        read_slices(case, LABELS, preprocessing, 32, cache)
        for case, preprocessing in (
            (scan, KITS), (replace(scan, site="site-B"), KITS), (replace(scan, site=""), KITS), (scan, kept),
            (scan, KITS.model_copy(update={"fit": "aspect"})), (scan, PREPROCESSINGS["ma_sam"]), (scan, KITS),
        )
    ]  # fmt: skip
    assert torch.equal(found[0].image, found[-1].image) and torch.equal(found[0].limits, found[-1].limits)
    assert torch.equal(found[0].image, found[3].image) and found[3].limits is None
    images = {one.image.numpy().tobytes() for one in found}
    assert len(images) == 5

"""Masks on the volume's own grid, whatever the file's axes; Dice."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.ndimage import zoom

from fedpeft.config.datasets import DATASETS
from fedpeft.config.preprocessing import PREPROCESSINGS
from fedpeft.data.datalist import Case
from fedpeft.data.volumes.volume import Volume, read_volume, to_original_grid
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.tasks.segmentation import SegmentationTask
from fedpeft.tasks.types import Stopped
from fedpeft.tasks.volume_masks import dice, largest, predict_mask

LABELS = {0: "background", 1: "organ", 2: "lesion"}
PREPROCESSING = DATASETS["phantom"].preprocessing


class Bright(torch.nn.Module):
    """Class 1 where the intensity exceeds a threshold, pixel by pixel."""

    def __init__(self, threshold=0.0):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.tensor(threshold))

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), x - self.threshold, torch.full_like(x, -100.0)], 1)


class Lopsided(torch.nn.Module):
    """Random 5 x 5 kernels: no flip or transposition leaves the answer alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.kernel = torch.nn.Conv2d(1, 3, 5, padding=2)

    def forward(self, x):
        return self.kernel(x)


def stored(folder, codes="RAS", shape=(20, 33, 7), spacing=(2.0, 1.0, 5.0), tilt=0.0):
    """A case whose file has these axis codes: noise, and a bright block that is no mirror image of itself."""
    array = np.random.default_rng(0).normal(100, 5, shape).astype(np.float32)
    array[3:9, 5:25, 2:4] += 200
    affine = np.diag([*spacing, 1.0])
    c, s = np.cos(tilt), np.sin(tilt)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3, :3]
    affine[:3, 3] = -7, 11, 3
    image = nibabel.Nifti1Image(array, affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    path = folder / f"{codes}.nii.gz"
    nibabel.save(image.as_reoriented(turn), path)
    return Case(codes, path), turn


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((20, 33, 7), (2.0, 1.0, 5.0)),
        ((33, 20, 5), (1.0, 3.0, 1.0)),
        ((32, 32, 4), (1.0, 1.0, 1.0)),
    ],
)
def test_the_mask_lies_on_the_volumes_own_grid(tmp_path, run, shape, spacing):
    volume = read_volume(stored(tmp_path, shape=shape, spacing=spacing)[0], LABELS, PREPROCESSING)
    threshold = float(volume.image.max() + volume.image.min()) / 2
    mask = predict_mask(Bright(threshold), volume, run.with_(image_size=64))
    assert tuple(mask.shape) == shape
    assert mask.dtype == torch.uint8
    truth = torch.zeros(shape, dtype=torch.bool)
    truth[3:9, 5:25, 2:4] = True
    assert dice(mask, truth, 1)[0] > 0.9
    assert set((mask > 0).any(0).any(0).nonzero().flatten().tolist()) == {2, 3}


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("codes", ["LPI", "PIR", "SAL", "ASR"])
def test_the_same_case_in_other_axes_gives_the_same_mask(tmp_path, run, codes, tilt):
    case, _ = stored(tmp_path, tilt=tilt)
    other, turn = stored(tmp_path, codes, tilt=tilt)
    masks = {}
    for item in (case, other):
        volume = read_volume(item, LABELS, PREPROCESSING)
        masks[item.case] = to_original_grid(predict_mask(Lopsided().eval(), volume, run), volume)
    assert len(np.unique(masks["RAS"])) == 3
    assert masks[codes].shape == nibabel.load(other.image).shape
    expected = nibabel.orientations.apply_orientation(masks["RAS"], turn)
    assert np.array_equal(masks[codes], expected)


@pytest.mark.parametrize(("batch", "stack"), [(1, 1), (1, 3), (4, 5)])
def test_slices_keep_their_place_however_many_go_in_at_once(tmp_path, run, batch, stack):
    volume = read_volume(stored(tmp_path)[0], LABELS, PREPROCESSING)
    found = predict_mask(Lopsided(), volume, run.with_(batch=batch, stack=stack, stride=1))
    assert torch.equal(found, predict_mask(Lopsided(), volume, run.with_(batch=1, stack=7)))


def test_threads_change_no_bit_of_a_mask_and_compute_as_the_caller_does(tmp_path, run):
    volume = read_volume(stored(tmp_path)[0], LABELS, PREPROCESSING)
    model, masks, kinds = build(run, shipped(run.backbone)).eval(), [], set()
    model.mask_decoder.register_forward_hook(lambda module, given, out: kinds.add(out.dtype))
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            masks.append(predict_mask(model, volume, run))
            assert kinds == {torch.float32}
            with torch.autocast("cpu", torch.bfloat16):
                predict_mask(model, volume, run)
            assert kinds == {torch.float32, torch.bfloat16}
            kinds.clear()
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*masks)


def test_the_largest_of_equal_values_is_the_first():
    values = torch.randint(0, 3, (4, 5, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(largest(values).long(), values.argmax(dim=1))


def test_it_stops_before_the_next_slices(tmp_path, run):
    volume = read_volume(stored(tmp_path, shape=(20, 33, 17))[0], LABELS, PREPROCESSING)
    asked = []
    with pytest.raises(Stopped):
        predict_mask(Bright(), volume, run.with_(batch=1, stack=1, stride=1), lambda: asked.append(0) or len(asked) > 2)
    assert len(asked) == 3


def test_the_mode_of_the_model_comes_back_also_when_stopped(tmp_path, run):
    volume = read_volume(stored(tmp_path)[0], LABELS, PREPROCESSING)
    volume = replace(volume, label=torch.zeros_like(volume.image, dtype=torch.uint8))
    model = Bright().train()
    with pytest.raises(Stopped):
        SegmentationTask().score(model, [("case", volume)], run, LABELS, ("site", "test"), lambda: True)
    assert model.training


def test_a_case_without_label_is_named(tmp_path, run):
    volume = read_volume(stored(tmp_path)[0], LABELS, PREPROCESSING)
    with pytest.raises(ValueError, match="case-7"):
        SegmentationTask().score(Bright(), [("case-7", volume)], run, LABELS, ("site", "test"))


@pytest.mark.parametrize(
    ("mask", "label", "expected"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0], [1, 1]),
        ([0, 0, 0, 0], [1, 0, 0, 0], [0, 1]),
        ([1, 2, 0, 0], [0, 0, 0, 0], [0, 0]),
        ([1, 1, 2, 0], [1, 1, 2, 0], [1, 1]),
        ([1, 1, 0, 2], [1, 0, 2, 2], [2 / 3, 2 / 3]),
        ([2, 2, 1, 1], [1, 1, 2, 2], [0, 0]),
    ],
)
def test_dice(mask, label, expected):
    tensors = [torch.tensor(values, dtype=torch.uint8).reshape(2, 2, 1) for values in (mask, label)]
    assert dice(*tensors, 2) == pytest.approx(expected)


class StackMean(torch.nn.Module):
    """Class 1 where the mean over the stack of five is positive: a network that mixes slices."""

    def __init__(self):
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x):
        assert len(x) % 5 == 0
        self.seen += x.unflatten(0, (-1, 5))[:, :, 0, 0, 0].tolist()
        mean = x.unflatten(0, (-1, 5)).mean(dim=1, keepdim=True).expand(-1, 5, -1, -1, -1).flatten(0, 1)
        return torch.cat([torch.zeros_like(mean), mean + self.parameter, torch.full_like(mean, -9.0)], 1)


@pytest.mark.parametrize(
    ("depth", "stride", "starts"),
    [
        (7, 5, [0, 2]),
        (7, 2, [0, 2]),
        (7, 1, [0, 1, 2]),
        (12, 5, [0, 5, 7]),
        (12, 2, [0, 2, 4, 6, 7]),
        (3, 5, [-1]),
    ],
)
def test_a_method_that_mixes_slices_predicts_overlapping_stacks(run, depth, stride, starts):
    mixing = run.with_(method="ma_sam", stride=stride, image_size=32)
    values = torch.randn(depth, generator=torch.Generator().manual_seed(3))
    image = values.reshape(1, 1, -1).expand(32, 32, depth).clone()
    volume = replace(volume_of(image), spacing=(1.0, 1.0, 1.0))
    model = StackMean()
    mask = predict_mask(model, volume, mixing)
    padded = torch.cat([values[:1], values, values[-1:]]) if depth < 5 else values
    first = 1 if depth < 5 else 0
    expected, count = torch.zeros(len(padded), 3), torch.zeros(len(padded), 1)
    for start in starts:
        window = slice(start + first, start + first + 5)
        logits = torch.tensor([0.0, padded[window].mean(), -9.0])
        expected[window] += logits.softmax(dim=0)
        count[window] += 1
    expected = (expected / count).argmax(dim=1)[first : first + depth]
    assert mask.shape == image.shape
    assert torch.equal(mask[0, 0].long(), expected)
    assert len(model.seen) == len(starts)


class Odd(torch.nn.Module):
    """Probabilities that depend on the intensity in no linear way; counts the slices that it computes."""

    def __init__(self):
        super().__init__()
        self.parameter, self.seen = torch.nn.Parameter(torch.zeros(())), 0

    def forward(self, x):
        self.seen += len(x)
        return torch.cat([torch.sin(9 * x), torch.cos(14 * x) + self.parameter, torch.sin(23 * x + 1)], 1)


def published_mask(model, image, size, stack=5):
    """The mask of (H, W, D) intensities as the published test scripts compute it: stack by stack, then the mean."""
    depth, half = image.shape[-1], stack // 2
    padded = np.concatenate([image[..., :1]] * half + [image] + [image[..., -1:]] * half, axis=-1)
    total = np.zeros((depth + 2 * half, 3, *image.shape[:2]))
    count = np.ones((depth + 2 * half, 1, 1, 1))
    for centre in range(depth):
        part = padded[..., centre : centre + stack]
        part = (part - part.min()) / (part.max() - part.min() + 1e-8)
        part = zoom(part, (size / part.shape[0], size / part.shape[1], 1.0), order=3)
        with torch.no_grad():
            found = model(torch.from_numpy(part).float().permute(2, 0, 1)[:, None]).softmax(1).numpy()
        total[centre : centre + stack] += zoom(found, (1, 1, image.shape[0] / size, image.shape[1] / size), order=3)
        count[centre : centre + stack] += 1
    return (total / count).argmax(1)[half:-half].transpose(1, 2, 0)


@pytest.mark.parametrize("method", ["flap_sam", "ma_sam"])
@pytest.mark.parametrize("depth", [1, 3, 11])
def test_stacks_of_their_own_range_are_averaged_as_the_published_test_does(run, method, depth):
    image = np.random.default_rng(depth).random((21, 30, depth)).astype(np.float32)
    image *= 1 + np.arange(depth) / 3
    volume = replace(volume_of(torch.from_numpy(image)), preprocessing=PREPROCESSINGS["authors"])
    model = Odd()
    found = predict_mask(model, volume, run.with_(method=method, stack_ends="repeat", stride=1))
    seen = model.seen
    assert (found.numpy() == published_mask(model, image, 32)).mean() > 0.998
    # Slices of one network input are computed once for each range, whole stacks as they are.
    assert depth <= seen <= 5 * depth and (method == "flap_sam" or seen == 5 * depth)


def test_a_slice_is_computed_once_for_each_range_of_its_stacks(run):
    image = torch.rand(20, 20, 9, generator=torch.Generator().manual_seed(0))
    image[0, 0], image[0, 1] = 0.0, 1.0
    model, authors = Odd(), run.with_(stack_ends="repeat", stride=1)
    volume = replace(volume_of(image), preprocessing=PREPROCESSINGS["authors"])
    mask = predict_mask(model, volume, authors)
    assert model.seen == 9
    # One range everywhere, which is 0 to 1: the same as without any scaling, whatever the stacks are.
    kept = PREPROCESSINGS["authors"].model_copy(update={"stack_range": "kept"})
    assert torch.equal(mask, predict_mask(model, replace(volume, preprocessing=kept), authors))
    assert torch.equal(mask, predict_mask(model, volume, run))


def test_repeated_ends_change_nothing_where_stacks_keep_their_range(tmp_path, run):
    volume = read_volume(stored(tmp_path)[0], LABELS, PREPROCESSING)
    masks = [predict_mask(Lopsided(), volume, run.with_(stack_ends=ends, stride=1)) for ends in ("inside", "repeat")]
    assert torch.equal(*masks) and len(masks[0].unique()) == 3


def volume_of(image):
    """A volume in memory, without a file."""
    return Volume(
        case="c",
        image=image,
        label=None,
        spacing=(1.0, 1.0, 1.0),
        normalised="volume",
        statistics=None,
        grid=None,
        affine=np.eye(4),
    )

"""Fitting to the network's square and back; stacks, their number, order and seed."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from toy import LABELS

from fedpeft.config.datasets import Preprocessing
from fedpeft.data.datalist import Case
from fedpeft.data.volumes.fit import content_size, fit, unfit
from fedpeft.data.volumes.stacks import StackData

PLAIN = Preprocessing()


def ball(height: int, width: int, spacing: tuple[float, float]) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
    return ((y * spacing[0]) ** 2 + (x * spacing[1]) ** 2 < 20**2).to(torch.uint8)[None]


@pytest.mark.parametrize(
    ("native", "spacing", "edge", "size"),
    [
        ((64, 64), (1.0, 1.0), 96, (96, 96)),
        ((128, 64), (1.0, 1.0), 96, (96, 48)),
        ((64, 64), (1.0, 2.0), 96, (48, 96)),
        ((200, 100), (0.5, 1.0), 96, (96, 96)),
        ((3, 300), (1.0, 1.0), 32, (1, 32)),
    ],
)
def test_the_longer_edge_fills_the_square(native: tuple, spacing: tuple, edge: int, size: tuple) -> None:
    assert content_size(native, spacing, edge) == size
    slices = torch.rand(2, *native) + 5
    square = fit(slices, spacing, edge, "image")
    assert square.shape == (2, edge, edge) and square.dtype == torch.float32
    inside = fit(torch.ones(2, *native, dtype=torch.uint8), spacing, edge, "label")
    assert inside.sum() == 2 * size[0] * size[1]
    margin = (edge - size[0]) // 2, (edge - size[1]) // 2
    assert inside[0, edge // 2].argmax() == margin[1] and inside[0, :, edge // 2].argmax() == margin[0]
    assert (square[inside == 0] == slices.min()).all()


@pytest.mark.parametrize(
    ("native", "spacing"), [((70, 60), (1.0, 1.0)), ((80, 50), (1.0, 2.0)), ((150, 170), (0.5, 0.4))]
)
def test_a_ball_stays_a_ball_and_comes_back(native: tuple[int, int], spacing: tuple[float, float]) -> None:
    label = ball(*native, spacing)
    square = fit(label, spacing, 96, "label")
    lines, columns = square[0].any(1).sum(), square[0].any(0).sum()
    assert abs(int(lines) - int(columns)) <= 2
    logits = torch.nn.functional.one_hot(square.long(), 2).permute(0, 3, 1, 2).float()
    back = unfit(logits, native, spacing).argmax(1).to(torch.uint8)
    assert back.shape == label.shape
    dice = 2 * (back & label).sum() / (back.sum() + label.sum())
    assert dice > 0.95


def test_labels_keep_their_type_and_values_and_unknown_modes_are_refused() -> None:
    labels = torch.randint(0, 3, (4, 33, 21))
    square = fit(labels, (1.0, 1.0), 64, "label")
    assert square.dtype == torch.int64 and set(square.unique().tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="mode is 'mask'"):
        fit(labels, (1.0, 1.0), 64, "mask")


@pytest.fixture
def cases(make_case: Callable[..., Case]) -> list[Case]:
    """Three volumes; each slice's mean tells its volume and index, foreground is in a few slices."""
    made = []
    for number, depth in enumerate((12, 13, 3)):
        image = np.random.default_rng(number).normal(0, 1, (16, 16, depth))
        image += 10 * (np.arange(depth) + 20 * number + 1)
        label = np.zeros((16, 16, depth), np.uint8)
        label[4:8, 4:8, 1:3] = 1
        made.append(make_case(f"case-{number}", image=image.astype(np.float32), label=label))
    return made


def keep(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def data(cases: list[Case], **changes: object) -> StackData:
    return StackData(cases, LABELS, PLAIN, 16, **{"batch": 2, **changes})


@pytest.mark.parametrize("whole", [False, True])
def test_shapes_types_and_number_of_steps(cases: list[Case], whole: bool) -> None:
    stacks = data(cases, whole=whole)
    for seed in range(8):
        batches = list(stacks.epoch(seed))
        assert len(batches) == stacks.steps()
        for images, labels in batches:
            assert not (whole and len(images) % 5) and images.shape[1:] == (1, 16, 16) and images.dtype == torch.float32
            assert labels.shape == (len(images), 16, 16) and labels.dtype == torch.int64


def test_a_seed_determines_an_epoch(cases: list[Case]) -> None:
    first, again, other = keep(data(cases).epoch(5)), keep(data(cases).epoch(5)), keep(data(cases).epoch(6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])
    stacks = data(cases)
    list(stacks.epoch(1))
    assert torch.equal(keep(stacks.epoch(5))[0], first[0])


def test_chosen_batches_are_those_of_the_whole_epoch(cases: list[Case]) -> None:
    stacks = data(cases, batch=1)
    every, chosen = list(stacks.epoch(3)), list(stacks.epoch(3, [2, 0, 2]))
    assert len(every) > 3 and len(chosen) == 3
    for index, (images, labels) in zip([2, 0, 2], chosen, strict=True):
        assert torch.equal(images, every[index][0]) and torch.equal(labels, every[index][1])


def test_each_slice_is_in_one_batch_once(cases: list[Case]) -> None:
    stacks = data(cases, augmentation="none", background_ratio=100)
    every = Counter(image.numpy().tobytes() for volume in stacks.volumes for image in volume.image)
    assert len(every) == 12 + 13 + 3
    for seed in range(6):
        seen, labels = keep(stacks.epoch(seed))
        assert Counter(image.numpy().tobytes() for image in seen[:, 0]) == every
        assert labels.count_nonzero() == sum(volume.label.count_nonzero() for volume in stacks.volumes)


def test_each_slice_once_an_epoch(cases: list[Case]) -> None:
    stacks = data(cases, augmentation="none", background_ratio=100)
    firsts = set()
    for seed in range(40):
        sampled = stacks._chosen_stacks(np.random.default_rng(seed))
        firsts |= {int(start) for volume, start in sampled if volume == 0 and start <= 0}
        for index, volume in enumerate(stacks.volumes):
            starts = sorted(start for number, start in sampled if number == index)
            slices = [s for start in starts for s in range(start, start + 5) if 0 <= s < len(volume.positive)]
            assert slices == list(range(len(volume.positive)))
    assert firsts == {0, -1, -2, -3, -4}


def test_edges_are_repeated_and_neighbours_are_neighbours(cases: list[Case]) -> None:
    stacks = data(cases, augmentation="none", whole=True)
    image, _ = stacks._sample(0, 0, -2)
    assert torch.equal(image, stacks.volumes[0].image[[0, 0, 0, 1, 2]])
    image, _ = stacks._sample(0, 2, -1)
    assert torch.equal(image, stacks.volumes[2].image[[0, 0, 1, 2, 2]])


def test_repeated_edges_are_left_out_after_augmentation(cases: list[Case]) -> None:
    for start, kept in ((-2, [2, 3, 4]), (10, [0, 1]), (3, [0, 1, 2, 3, 4])):
        whole, fresh = (data(cases, whole=whole)._sample(4, 0, start) for whole in (True, False))
        assert all(torch.equal(every[kept], some) for every, some in zip(whole, fresh, strict=True))


def test_stride_one_is_the_papers(cases: list[Case]) -> None:
    stacks = data(cases, stride=1, background_ratio=100)
    sampled = stacks._chosen_stacks(np.random.default_rng(0))
    starts = [sorted(int(start) for number, start in sampled if number == index) for index in range(3)]
    assert starts == [list(range(8)), list(range(9)), [0]]


def test_background_stacks_are_a_share_of_the_positives(cases: list[Case]) -> None:
    for ratio, least, most in ((0.0, 1, 1), (0.5, 1, 2), (100, 3, 9)):
        stacks = data(cases, background_ratio=ratio)
        chosen = set()
        for seed in range(10):
            sampled = stacks._chosen_stacks(np.random.default_rng(seed))
            flags = [bool(stacks._positives(stacks.volumes[v], np.array([s]))[0]) for v, s in sampled]
            assert sum(flags) in (3, 4, 5, 6) and least <= len(flags) - sum(flags) <= most
            chosen.add(tuple(map(tuple, sampled[~np.array(flags)])))
        assert len(chosen) > 3


def test_one_slice_and_many_steps(make_case: Callable[..., Case]) -> None:
    label = np.zeros((16, 16, 1), np.uint8)
    label[3:6, 3:6] = 1
    image = np.random.default_rng(0).normal(size=(16, 16, 1)).astype(np.float32)
    case = make_case(image=image, label=label)
    for whole, slices in ((False, 1), (True, 5)):
        stacks = data([case], batch=1, whole=whole)
        assert [len(images) for images, _ in stacks.epoch(0)] == [slices] * stacks.steps()


def test_wrong_arguments(cases: list[Case]) -> None:
    with pytest.raises(ValueError, match="no training case"):
        data([])
    with pytest.raises(ValueError, match="stride 6"):
        data(cases, stride=6)
    with pytest.raises(ValueError, match="image.nii.gz: has no label"):
        data([Case("one", cases[0].image)])

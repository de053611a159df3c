"""HD95, ASSD and NSD against a second implementation by brute force, and the rule for empty masks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from fedpeft.tasks.mask_metrics import MASK_METRICS, MaskPair, Metric, hd95, mask_scores
from fedpeft.tasks.scores import PLAIN, Scoring

NAMES = ("hd95", "assd", "nsd")
NEAR = {"rel": 0, "abs": 1e-6}


def surface(mask, spacing):
    """Positions of the voxels one of whose face neighbours is outside the mask or the image, voxel by voxel."""
    inside = set(zip(*map(list, np.nonzero(mask)), strict=True))
    found = []
    for voxel in inside:
        neighbours = [
            tuple(value + step * (index == axis) for index, value in enumerate(voxel))
            for axis in range(mask.ndim)
            for step in (-1, 1)
        ]
        if any(neighbour not in inside for neighbour in neighbours):
            found.append([int(value) * size for value, size in zip(voxel, spacing, strict=True)])
    return np.array(found, dtype=np.float64)


def directed(first, second):
    """The distance of each point to the nearest of the others, from all pairs."""
    return sorted(float(np.sqrt(((second - point) ** 2).sum(axis=1)).min()) for point in first)


def percentile(ordered, share):
    """Linear interpolation between the two ordered values around the position."""
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def by_brute_force(prediction, label, spacing, tolerance):
    points = surface(prediction, spacing), surface(label, spacing)
    there, back = directed(*points), directed(*points[::-1])
    both = there + back
    return {
        "hd95": max(percentile(there, 0.95), percentile(back, 0.95)),
        "assd": math.fsum(both) / len(both),
        # A distance equal to the tolerance but for rounding counts.
        "nsd": sum(distance < tolerance + 1e-4 for distance in both) / len(both),
    }


def computed(prediction, label, spacing, tolerance=2.0):
    pair = MaskPair(prediction, label, spacing, tolerance)
    return {name: MASK_METRICS[name].of(pair) for name in NAMES}


def noise(generator, shape):
    return generator.random(shape) < generator.choice([0.03, 0.3, 0.7])


def block(generator, shape):
    """A box that often touches the border, and is often one voxel thin."""
    mask = np.zeros(shape, dtype=bool)
    corners = [sorted(generator.integers(0, size + 1, 2)) for size in shape]
    mask[
        tuple(slice(min(low, size - 1), max(high, low + 1)) for (low, high), size in zip(corners, shape, strict=True))
    ] = 1
    return mask


def line(generator, shape):
    """A line from border to border along one axis."""
    mask = np.zeros(shape, dtype=bool)
    axis = generator.integers(len(shape))
    at = [slice(None) if index == axis else generator.integers(size) for index, size in enumerate(shape)]
    mask[tuple(at)] = True
    return mask


def shell(generator, shape):
    """A box without its inside: all of a thin structure is surface."""
    mask = block(generator, shape)
    inside = mask.copy()
    for axis in range(mask.ndim):
        inside &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return mask & ~inside


KINDS = (noise, block, line, shell)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 9), min_size=2, max_size=3),
    st.lists(st.floats(0.3, 6.0), min_size=3, max_size=3),
    st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    st.floats(0.2, 8.0),
)
def test_any_two_masks_have_the_metrics_of_brute_force(seed, shape, spacing, kinds, tolerance):
    generator = np.random.default_rng(seed)
    prediction, label = (kind(generator, tuple(shape)) for kind in kinds)
    prediction.flat[generator.integers(prediction.size)] = label.flat[generator.integers(label.size)] = True
    spacing = spacing[: len(shape)]
    expected = by_brute_force(prediction, label, spacing, tolerance)
    assert computed(prediction, label, spacing, tolerance) == {k: pytest.approx(v, **NEAR) for k, v in expected.items()}


def test_the_brute_force_is_right_about_masks_by_hand():
    """Two lines of 1 and 3 voxels: distances 2 from the one, and 2, sqrt(13) and sqrt(40) from the others."""
    prediction, label = np.zeros((2, 5, 2, 3), dtype=bool)[:, :, 0, :], np.zeros((2, 5, 3), dtype=bool)
    prediction[0, 0, 0], label[1, 0:3, 0] = True, True
    values = [2.0, math.sqrt(13), math.sqrt(40)]
    expected = {
        "hd95": values[1] + 0.9 * (values[2] - values[1]),
        "assd": (2 + sum(values)) / 4,
        "nsd": 2 / 4,
    }
    for found in (by_brute_force, computed):
        assert found(prediction, label, (2.0, 3.0, 7.0), 2.0) == {
            k: pytest.approx(v, **NEAR) for k, v in expected.items()
        }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(8, 9, 7), (12, 10)])
def test_the_definitions_are_monais(kind, shape):
    generator, spacing, tolerance = np.random.default_rng(5), (0.7, 1.3, 4.9)[: len(shape)], 2.17
    prediction, label = kind(generator, shape), kind(generator, shape)
    one_hot = [torch.from_numpy(mask)[None, None] for mask in (prediction, label)]
    common = {"include_background": True, "spacing": spacing}
    expected = {
        "hd95": compute_hausdorff_distance(*one_hot, percentile=95, **common),
        "assd": compute_average_surface_distance(*one_hot, symmetric=True, **common),
        "nsd": compute_surface_dice(*one_hot, [tolerance], **common),
    }
    found = computed(prediction, label, spacing, tolerance)
    assert found == {name: pytest.approx(float(value), rel=1e-5) for name, value in expected.items()}


def test_the_spacing_is_in_the_order_of_the_axes():
    generator, spacing = np.random.default_rng(0), (0.5, 2.0, 5.0)
    prediction, label = noise(generator, (6, 7, 8)), noise(generator, (6, 7, 8))
    turned = [mask.transpose(2, 0, 1) for mask in (prediction, label)]
    found = computed(prediction, label, spacing)
    assert computed(*turned, (5.0, 0.5, 2.0)) == pytest.approx(found)
    assert computed(*turned, spacing) != pytest.approx(found)
    # In another unit, lengths change and the share does not.
    tenth = computed(prediction, label, [size / 10 for size in spacing], 0.2)
    assert tenth == pytest.approx({"hd95": found["hd95"] / 10, "assd": found["assd"] / 10, "nsd": found["nsd"]})


def test_hd95_is_the_larger_directed_percentile_and_not_that_of_both_directions_together():
    prediction, label = np.zeros((1, 40), dtype=bool), np.zeros((1, 40), dtype=bool)
    prediction[0, :10], label[0] = True, True
    pair = MaskPair(prediction, label, (1.0, 1.0))
    # Of 40 distances, 10 are 0 and the others 1 to 30.
    assert hd95(pair) == pytest.approx(0.95 * 39 - 9)
    assert np.quantile(np.concatenate(pair.distances), 0.95) < hd95(pair) - 0.1
    assert hd95(MaskPair(label, prediction, (1.0, 1.0))) == hd95(pair)


@pytest.mark.parametrize("size", [1.0, 0.1, 1 / 3, 0.9999999999, 1.00000001])
def test_a_surface_exactly_at_the_tolerance_is_within_it_however_it_is_rounded(size):
    prediction, label = np.zeros((9, 3), dtype=bool), np.zeros((9, 3), dtype=bool)
    prediction[0], label[3] = True, True
    assert computed(prediction, label, (size, 1.0), round(3 * size, 6))["nsd"] == 1
    assert computed(prediction, label, (size, 1.0), round(3 * size, 6) - 1e-3)["nsd"] == 0


DIAGONAL = math.sqrt((4 * 2.0) ** 2 + (5 * 1.0) ** 2 + (6 * 0.5) ** 2)


@pytest.mark.parametrize(
    ("predicted", "true", "empty", "distance", "nsd"),
    [
        (0, 0, "both", 0.0, 1.0),
        (0, 1, "prediction", DIAGONAL, 0.0),
        (1, 0, "label", DIAGONAL, 0.0),
        (1, 1, "", 0.0, 1.0),
    ],
)
def test_empty_masks_follow_one_rule(predicted, true, empty, distance, nsd):
    mask, label = torch.zeros(4, 5, 6, dtype=torch.uint8), torch.zeros(4, 5, 6, dtype=torch.uint8)
    mask[1, 2, 3], label[1, 2, 3] = predicted, true
    scoring = Scoring(NAMES, 2.0)
    (found,) = mask_scores(mask, label, (2.0, 1.0, 0.5), [0.5], {0: "background", 1: "organ"}, ("s", "t", "c"), scoring)
    assert (found.empty, found.value) == (empty, 0.5)
    assert found.others == {"hd95": pytest.approx(distance), "assd": pytest.approx(distance), "nsd": nsd}


def test_each_class_has_its_own_masks_and_the_given_dice():
    generator = np.random.default_rng(3)
    mask, label = (torch.from_numpy(generator.integers(0, 3, (5, 6, 4)).astype(np.uint8)) for _ in range(2))
    labels = {0: "background", 1: "organ", 2: "lesion"}
    of, spacing = ("north", "test", "case-1"), (1.0, 0.7, 3.0)
    found = mask_scores(mask, label, spacing, [0.1, 0.2], labels, of, Scoring(("nsd", "assd"), 1.5))
    assert [(i.site, i.split, i.case, i.label, i.value) for i in found] == [(*of, "organ", 0.1), (*of, "lesion", 0.2)]
    for index, item in enumerate(found, start=1):
        expected = by_brute_force((mask == index).numpy(), (label == index).numpy(), spacing, 1.5)
        assert item.others == {name: pytest.approx(expected[name], **NEAR) for name in ("nsd", "assd")}
    plain = mask_scores(mask, label, spacing, [0.1, 0.2], labels, of, PLAIN)
    assert [dict(item.others) for item in plain] == [{}, {}]


def test_a_metric_says_its_unit_and_direction():
    found = {name: MASK_METRICS[name].to_dict(Scoring(NAMES, 1.5), "px") for name in NAMES}
    assert found == {
        "hd95": {"title": "HD95 in px", "unit": "px", "better": "lower"},
        "assd": {"title": "ASSD in px", "unit": "px", "better": "lower"},
        "nsd": {"title": "NSD at 1.5 px", "unit": "", "better": "higher", "tolerance": 1.5},
    }
    assert all(isinstance(metric, Metric) for metric in MASK_METRICS.values())

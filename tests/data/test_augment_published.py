"""The augmentations of published code: how often, how far, what they do, and what they must not do."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from fedpeft.config.preprocessing import AUGMENTATIONS as ENTRIES
from fedpeft.data.volumes.augment.ma_sam import RANGES, Choice, MASAMAugmentation
from fedpeft.data.volumes.augment.registry import AUGMENTATIONS, StackAugmentation
from fedpeft.data.volumes.augment.samed import SAMedAugmentation

# Pixels of augmented squares, and of those for which many augmentations are only chosen.
EDGE, LARGE, SAMPLES = 64, 224, 10_000


def stack(seed: int = 0) -> dict[str, torch.Tensor]:
    """Five equal slices from 0 to 1, with a smooth pattern that has no symmetry, and its label."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((EDGE, EDGE)), 4).astype(np.float32)
    image = torch.from_numpy((noise - noise.min()) / np.ptp(noise)).repeat(5, 1, 1)
    return {"image": image, "label": (image > 0.6).to(torch.uint8) * 2}


@pytest.fixture(scope="module")
def choices() -> list[Choice]:
    augment, found = MASAMAugmentation(), []
    for seed in range(SAMPLES):
        augment.set_random_state(seed=seed)
        augment.randomize(LARGE)
        found.append(augment.chosen)
    return found


def with_choice(choice: Choice, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    augment = MASAMAugmentation()
    augment.randomize = lambda data: setattr(augment, "chosen", choice)
    return augment(data)


def test_every_entry_has_an_implementation() -> None:
    assert {*ENTRIES} == {*AUGMENTATIONS} >= {"standard", "ma_sam", "samed", "none"}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_one_outcome_for_the_whole_stack_that_the_seed_determines(name: str) -> None:
    one, two, data = AUGMENTATIONS[name](), AUGMENTATIONS[name](), stack()
    before = {key: value.clone() for key, value in data.items()}
    changed = 0
    for seed in range(60):
        outcomes = []
        for augment in (one, two):
            augment.set_random_state(seed=seed)
            outcomes.append(augment(data))
        for key in ("image", "label"):
            assert torch.equal(*(outcome[key] for outcome in outcomes))
            assert torch.equal(outcomes[0][key], outcomes[0][key][:1].expand(5, -1, -1))
            assert outcomes[0][key].dtype == before[key].dtype and torch.equal(data[key], before[key])
        assert 0 <= outcomes[0]["image"].min() and outcomes[0]["image"].max() <= 1
        assert {*outcomes[0]["label"].unique().tolist()} <= {0, 2}
        changed += not torch.equal(outcomes[0]["image"], data["image"])
    assert changed == 0 if name == "none" else changed > 30


@pytest.mark.parametrize(
    ("part", "share"),
    [
        (lambda choice: choice.flip is not None, 0.5),
        (lambda choice: choice.turns == 3, 0.125),
        (lambda choice: choice.angle is not None, 0.5),
        (lambda choice: choice.gamma is not None, 0.5),
        (lambda choice: choice.noise is not None, 0.5),
    ],
)
def test_how_often_each_part_of_ma_sam_is_chosen(choices: list[Choice], part, share: float) -> None:
    assert np.mean([part(choice) for choice in choices]) == pytest.approx(share, abs=0.02)


def test_two_of_ten_operations_always(choices: list[Choice]) -> None:
    pairs = Counter(tuple(sorted(name for name, _ in choice.operations)) for choice in choices)
    assert {*pairs} == {tuple(sorted(pair)) for pair in combinations(RANGES, 2)} and len(RANGES) == 10
    assert all(count / SAMPLES == pytest.approx(1 / 45, abs=0.01) for count in pairs.values())
    firsts = Counter(choice.operations[0][0] for choice in choices)
    assert all(firsts[name] / SAMPLES == pytest.approx(0.1, abs=0.02) for name in RANGES)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("shear_across", -0.3, 0.3), ("shear_down", -0.3, 0.3), ("scale", 0.8, 1.2), ("translate_across", -0.2, 0.2),
        ("translate_down", -0.2, 0.2), ("posterize", 4, 8.99), ("contrast", 0.7, 1.3), ("brightness", 0.7, 1.3),
        ("sharpness", 0.1, 1.9),
    ],
)  # fmt: skip
def test_ranges_of_the_operations(choices: list[Choice], name: str, low: float, high: float) -> None:
    values = [value for choice in choices for found, value in choice.operations if found == name]
    margin = 0.02 * (high - low)
    assert len(values) > 1000 and low <= min(values) < low + margin and high - margin < max(values) <= high
    assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.05 * (high - low))


def test_gamma_brightens_five_of_six(choices: list[Choice]) -> None:
    gammas = np.array([choice.gamma for choice in choices if choice.gamma is not None])
    assert 0.5 <= gammas.min() < 0.52 and 3.48 < gammas.max() <= 3.5
    grey = {"image": torch.full((1, 8, 8), 0.5), "label": torch.zeros(1, 8, 8, dtype=torch.uint8)}
    found = np.array([float(with_choice(Choice(gamma=gamma), grey)["image"][0, 0, 0]) for gamma in gammas])
    assert np.mean(found > 0.5) == pytest.approx(0.83, abs=0.02)
    assert np.mean(found) == pytest.approx(0.66, abs=0.01) and np.median(found) == pytest.approx(0.70, abs=0.01)


def test_angles_and_erased_rectangles(choices: list[Choice]) -> None:
    assert {choice.angle for choice in choices} == {None, *range(-15, 15)}
    boxes = [(choice.corner, choice.noise) for choice in choices if choice.noise is not None]
    areas = np.array([noise.size / LARGE**2 for _, noise in boxes])
    # Edges are rounded down, by less than a pixel each.
    assert 0.017 < areas.min() < 0.021 and 0.048 < areas.max() <= 0.05
    assert areas.mean() == pytest.approx(0.034, abs=0.001)
    aspects = np.array([noise.shape[1] / noise.shape[0] for _, noise in boxes])
    assert (
        0.28 < aspects.min() < 0.32 and 3.2 < aspects.max() < 3.5 and np.mean(aspects) == pytest.approx(1.8, abs=0.05)
    )
    assert all(top + len(noise) <= LARGE and left + noise.shape[1] <= LARGE for (top, left), noise in boxes)
    values = np.concatenate([noise.ravel() for _, noise in boxes[:200]])
    assert 0 <= values.min() < 0.01 and 0.99 < values.max() <= 1 and values.mean() == pytest.approx(0.5, abs=0.01)


def moved(matrix: tuple[float, ...]):
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("shear_across", 0.2, moved((1, 0.2, -0.1 * EDGE, 0, 1, 0))),
        ("shear_down", -0.3, moved((1, 0, 0, -0.3, 1, 0.15 * EDGE))),
        ("scale", 1.2, moved((1.2, 0, 0, 0, 1.2, 0))),
        ("translate_across", 0.125, moved((1, 0, 0.125 * EDGE, 0, 1, 0))),
        ("translate_down", -0.2, moved((1, 0, 0, 0, 1, -0.2 * EDGE))),
        ("posterize", 4.9, lambda image: ImageOps.posterize(image, 4)),
        ("contrast", 0.7, lambda image: ImageEnhance.Contrast(image).enhance(0.7)),
        ("brightness", 1.3, lambda image: ImageEnhance.Brightness(image).enhance(1.3)),
        ("sharpness", 1.9, lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
        ("identity", 0.5, None),
    ],
)
def test_what_each_operation_does(name: str, value: float, expected) -> None:
    data = stack()
    out = with_choice(Choice(operations=((name, value),)), data)
    if expected is None:
        assert torch.equal(out["image"], data["image"])
        return
    plain = (data["image"][0].numpy() * 255).astype(np.uint8)
    np.testing.assert_array_equal(np.rint(out["image"][0].numpy() * 255), np.asarray(expected(Image.fromarray(plain))))


def test_a_rotation_is_scipys_and_erasing_fills_with_noise() -> None:
    data = stack()
    out = with_choice(Choice(angle=-11), data)
    for key in ("image", "label"):
        expected = ndimage.rotate(data[key].numpy(), -11, axes=(1, 2), order=0, reshape=False)
        np.testing.assert_array_equal(out[key].numpy(), expected)
    noise = np.random.default_rng(0).random((6, 9)).astype(np.float32)
    out = with_choice(Choice(corner=(20, 30), noise=noise), data)
    np.testing.assert_array_equal(out["image"][3, 20:26, 30:39].numpy(), noise)
    outside = torch.ones(EDGE, EDGE, dtype=torch.bool)
    outside[20:26, 30:39] = False
    assert torch.equal(out["image"][:, outside], data["image"][:, outside])
    assert torch.equal(out["label"], data["label"] * outside)


@pytest.mark.parametrize("make", [MASAMAugmentation, SAMedAugmentation])
def test_image_and_label_move_alike(make: type[StackAugmentation]) -> None:
    augment, label, seen = make(), stack()["label"], 0
    label[:, 40:, :20] = 2
    for seed in range(120):
        augment.set_random_state(seed=seed)
        if isinstance(augment, MASAMAugmentation):
            augment.randomize(EDGE)
            plain = [item for item in augment.chosen.operations if item[0] not in ("sharpness", "contrast")]
            out = with_choice(
                replace(augment.chosen, noise=None, operations=tuple(plain)), {"image": label / 2, "label": label}
            )
        else:
            out = augment({"image": label / 2, "label": label})
        seen += not torch.equal(out["label"], label)
        # Bilinear and nearest pixels may disagree along the outline.
        assert ((out["image"] > 0.3) != (out["label"] > 0)).float().mean() < 0.02
    assert seen > 50


def test_samed_turns_or_rotates() -> None:
    augment, found = SAMedAugmentation(), []
    for seed in range(SAMPLES):
        augment.set_random_state(seed=seed)
        augment.randomize(EDGE)
        found.append((augment.turns, augment.flip, augment.angle))
    assert np.mean([flip is not None for _, flip, _ in found]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([angle is not None for *_, angle in found]) == pytest.approx(0.25, abs=0.02)
    assert not any(flip is not None and angle is not None for _, flip, angle in found)
    assert {angle for *_, angle in found} == {None, *range(-20, 20)} and {turns for turns, *_ in found} == {0, 1, 2, 3}

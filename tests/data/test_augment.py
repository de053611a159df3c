"""Augmentation: one draw a stack, ranges, the seed, and what must not change."""

import numpy as np
import pytest
import torch

from fedpeft.data.volumes.augment.standard import RANGES, Augment, Augmentation

EDGE = 96


def stack(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, EDGE, EDGE, generator=generator).repeat(5, 1, 1)
    label = torch.zeros(5, EDGE, EDGE, dtype=torch.uint8)
    label[:, 20:60, 30:70] = 2
    return {"image": image, "label": label}


def selects(count: int) -> list[Augmentation]:
    augment, found = Augment(), []
    for seed in range(count):
        augment.set_random_state(seed=seed)
        augment.randomize(EDGE)
        found.append(augment.chosen)
    return found


def test_one_draw_for_the_whole_stack() -> None:
    augment = Augment()
    for seed in range(30):
        augment.set_random_state(seed=seed)
        out = augment(stack())
        for key in ("image", "label"):
            assert torch.equal(out[key], out[key][:1].expand_as(out[key]))


def test_a_seed_determines_the_result_whoever_computes_it() -> None:
    one, two = Augment(), Augment()
    for seed in range(10):
        one.set_random_state(seed=seed)
        first = one(stack())
        for order in (3, seed):
            two.set_random_state(seed=order)
            again = two(stack())
        assert torch.equal(first["image"], again["image"]) and torch.equal(first["label"], again["label"])


def test_types_range_and_input_are_kept() -> None:
    augment, data = Augment(), stack()
    before = {key: value.clone() for key, value in data.items()}
    low, high = float(data["image"].min()), float(data["image"].max())
    for seed in range(60):
        augment.set_random_state(seed=seed)
        out = augment(data)
        assert out["image"].dtype == torch.float32 and out["label"].dtype == torch.uint8
        assert torch.isfinite(out["image"]).all()
        assert low - 1e-4 <= out["image"].min() and out["image"].max() <= high + 1e-4
        assert set(out["label"].unique().tolist()) <= {0, 2}
    assert all(torch.equal(data[key], before[key]) for key in data)


def test_each_part_half_of_the_time() -> None:
    found = selects(2000)
    for part in (
        [draw.flip is not None for draw in found],
        [draw.gamma is not None for draw in found],
        [draw.box is not None for draw in found],
    ):
        assert abs(np.mean(part) - 0.5) < 0.05
    assert {draw.turns for draw in found} == {0, 1, 2, 3} and {draw.flip for draw in found} == {None, 0, 1}
    # Rotation, or shear, scale or translation among the two of seven: 1 - 1/2 (1 - 1/2 * 5/7).
    assert abs(np.mean([draw.matrix is not None for draw in found]) - (1 - 0.5 * (1 - 0.5 * 5 / 7))) < 0.05


def test_ranges() -> None:
    found = selects(2000)
    gamma = [draw.gamma for draw in found if draw.gamma is not None]
    assert 0.5 <= min(gamma) < 0.55 and 3.4 < max(gamma) <= 3.5
    areas = [draw.box[2] * draw.box[3] / EDGE**2 for draw in found if draw.box is not None]
    assert 0.018 <= min(areas) < 0.022 and 0.048 < max(areas) <= 0.052
    for draw in found:
        assert draw.box is None or (draw.box[0] + draw.box[2] <= EDGE and draw.box[1] + draw.box[3] <= EDGE)
        for name, value in draw.intensity:
            assert RANGES[name][0] <= value <= RANGES[name][1]
        assert len(draw.intensity) <= 2
        if draw.matrix is not None:
            # The output's area in the input: scale .8 to 1.2 and shears of up to .2 both ways, nothing else.
            assert 0.96 / 1.2**2 - 1e-6 <= abs(np.linalg.det(draw.matrix[:2, :2])) <= 1.04 / 0.8**2 + 1e-6
            assert np.abs(draw.matrix[:2, 2]).max() <= 0.4 * 1.25 * 1.5


@pytest.mark.parametrize(
    "draw", [Augmentation(gamma=2.0), Augmentation(box=(20, 30, 15, 15)), Augmentation(turns=1), Augmentation()]
)
def test_what_a_draw_does(draw: Augmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    augment, data = Augment(), stack()
    monkeypatch.setattr(augment, "randomize", lambda edge: setattr(augment, "chosen", draw))
    out = augment(data)
    low, high = data["image"].min(), data["image"].max()
    if draw.box:
        assert (out["image"][:, 20:35, 30:45] == low).all() and not out["label"][:, 20:35, 30:45].any()
        assert out["label"].count_nonzero() == data["label"].count_nonzero() - 5 * 15 * 15
    elif draw.gamma:
        unit = (data["image"] - low) / (high - low)
        torch.testing.assert_close(out["image"], unit**2 * (high - low) + low)
    else:
        torch.testing.assert_close(out["image"], torch.rot90(data["image"], draw.turns, (1, 2)))
        assert torch.equal(out["label"], torch.rot90(data["label"], draw.turns, (1, 2)))


def test_image_and_label_move_together() -> None:
    augment = Augment()
    label = stack()["label"]
    for seed in range(40):
        augment.set_random_state(seed=seed)
        out = augment({"image": label.float(), "label": label})
        if not augment.chosen.intensity and augment.chosen.gamma is None:
            assert ((out["image"] > 1) != (out["label"] > 1)).float().mean() < 0.005

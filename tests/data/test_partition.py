"""Dealing cases out: nothing is lost, groups and splits stay whole, and the skew is the one asked for."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import made_up

from fedpeft.data.found import FoundCase
from fedpeft.data.partition import PARTITIONS, partition
from fedpeft.data.splits import draw_splits, draw_validation


def content(images: list[FoundCase]) -> Counter:
    return Counter((p.case, p.split, p.image, p.target, p.group) for p in images)


def sites_of(images: list[FoundCase], sites: int, split: str = "training") -> list[list[FoundCase]]:
    return [[p for p in images if (p.site, p.split) == (f"site-{n + 1}", split)] for n in range(sites)]


def mixes(images: list[FoundCase], sites: int, classes: int) -> np.ndarray:
    counts = [np.bincount([p.target for p in own], minlength=classes) for own in sites_of(images, sites)]
    return np.array([count / count.sum() for count in counts])


def distance(images: list[FoundCase], how: str, alpha: float, seed: int = 0) -> float:
    """Mean total variation between the classes of five sites and those of all."""
    dealt = mixes(partition(images, how, 5, alpha, seed), 5, 4)
    return float(np.abs(dealt - dealt.mean(axis=0)).sum(axis=1).mean() / 2)


@settings(max_examples=40, deadline=None)
@given(
    how=st.sampled_from(sorted(PARTITIONS)), count=st.integers(40, 90), sites=st.integers(1, 8),
    seed=st.integers(0, 99), alpha=st.sampled_from((0.01, 0.3, 5.0, 1e4)), groups=st.sampled_from((0, 15)),
)  # fmt: skip
def test_nothing_is_lost_and_groups_stay_together(
    how: str, count: int, sites: int, seed: int, alpha: float, groups: int
) -> None:
    images = made_up(count, 4, groups=groups, seed=seed)
    dealt = partition(images, how, sites, alpha, seed)
    assert content(dealt) == content(images)
    assert dealt == partition(list(reversed(images)), how, sites, alpha, seed)
    assert {p.site for p in dealt if p.split == "training"} == {f"site-{n + 1}" for n in range(sites)}
    places = {p.group: set() for p in dealt if p.group}
    for p in dealt:
        places.get(p.group, set()).add(p.site)
    assert all(len(found) == 1 for found in places.values())


def test_another_seed_is_another_partition() -> None:
    images = made_up(100, 4)
    for how in PARTITIONS:
        assert partition(images, how, 3, 0.5, 0) != partition(images, how, 3, 0.5, 1)


def test_label_skew_grows_as_alpha_falls() -> None:
    images = made_up(800, 4)
    far, near = (np.mean([distance(images, "dirichlet", a, s) for s in range(2)]) for a in (0.1, 1e4))
    assert near < 0.1 < 0.3 < far
    assert distance(images, "iid", 0.1) < 0.1


@pytest.mark.parametrize("how", ["iid", "dirichlet"])
def test_sites_are_equal_in_every_split(how: str) -> None:
    dealt = partition(made_up(500, 4), how, 4, 0.2, 0)
    for split in ("training", "validation", "test"):
        sizes = [len(own) for own in sites_of(dealt, 4, split)]
        assert max(sizes) - min(sizes) <= 1


def test_quantity_skews_sizes_alike_in_every_split() -> None:
    dealt = partition(made_up(900, 4), "quantity", 4, 0.5, 3)
    shares = np.array([[len(own) for own in sites_of(dealt, 4, split)] for split in ("training", "test")], float)
    shares /= shares.sum(axis=1, keepdims=True)
    assert shares[0].max() > 3 * shares[0].min()
    assert np.allclose(shares[0], shares[1], atol=0.01)
    even = [len(own) for own in sites_of(partition(made_up(900, 4), "quantity", 4, 1e6, 3), 4)]
    assert max(even) - min(even) < 5


def test_what_cannot_be_dealt_out_is_refused() -> None:
    images = made_up(40, 2)
    trained = sum(p.split == "training" for p in images)
    with pytest.raises(ValueError, match=f"{trained} training cases or groups for {trained + 1} sites"):
        partition(images, "iid", trained + 1, 1.0, 0)
    for how, sites, alpha in (("natural", 3, 1.0), ("iid", 0, 1.0), ("dirichlet", 3, 0.0), ("iid", 3, float("nan"))):
        with pytest.raises(ValueError, match="expected one of iid, dirichlet, quantity"):
            partition(images, how, sites, alpha, 0)


def splits_of_groups(images: list[FoundCase]) -> list[set[str]]:
    found: dict[str, set[str]] = {}
    for p in images:
        found.setdefault(p.group or p.case, set()).add(p.split)
    return list(found.values())


@pytest.mark.parametrize("groups", [0, 100])
def test_random_splits_are_stratified_and_whole(groups: int) -> None:
    images = made_up(600, 3, sites=2, groups=groups, splits=False)
    sampled, faults = draw_splits(images, 1)
    assert not faults and {p.case for p in sampled} == {p.case for p in images}
    assert all(len(found) == 1 for found in splits_of_groups(sampled))
    for site in ("hospital-0", "hospital-1"):
        for target in range(3):
            count = Counter(p.split for p in sampled if (p.site, p.target) == (site, target))
            shares = [count[split] / count.total() for split in ("training", "validation", "test")]
            assert np.abs(np.array(shares) - (0.7, 0.1, 0.2)).max() < (0.12 if groups else 0.03)
    assert sampled == draw_splits(list(reversed(images)), 1)[0] != draw_splits(images, 2)[0]


def test_a_site_of_three_has_all_splits_and_one_of_two_is_a_fault() -> None:
    three = [p for p in made_up(30, 3, sites=3, splits=False) if p.site == "hospital-0"][:3]
    sampled, faults = draw_splits(three, 0)
    assert {p.split for p in sampled} == {"training", "validation", "test"} and not faults
    assert draw_splits(three[:2], 0)[1] == [
        "hospital-0: 2 cases or groups, expected at least 3 to split; give splits in a --table"
    ]  # fmt: skip


@pytest.mark.parametrize(("share", "expected"), [(0.1, 0.1), (0.001, 0.0), (0.5, 0.5)])
def test_validation_is_taken_from_training_alone(share: float, expected: float) -> None:
    images = [p for p in made_up(500, 3, sites=2, groups=60) if p.split != "validation"]
    sampled, faults = draw_validation(images, share, 0)
    assert not faults
    before, after = ({p.case for p in found if p.split == "test"} for found in (images, sampled))
    assert before == after
    moved = [found for found in splits_of_groups([p for p in sampled if p.split != "test"])]
    assert all(len(found) == 1 for found in moved)
    taken = sum(found == {"validation"} for found in moved)
    assert 2 <= taken and abs(taken / len(moved) - expected) < 0.02
    assert {p.site for p in sampled if p.split == "validation"} == {"hospital-0", "hospital-1"}


def test_validation_needs_something_to_take_from() -> None:
    one = [p for p in made_up(30, 3, sites=1) if p.split == "training"][:1]
    assert "expected at least 2" in draw_validation(one, 0.5, 0)[1][0]
    with pytest.raises(ValueError, match="share of validation is 1"):
        draw_validation(one, 1.0, 0)

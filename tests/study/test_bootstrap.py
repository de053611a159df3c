"""The paired bootstrap against what is known of it."""

from math import comb

import numpy as np
import pytest

from fedpeft.study.results.bootstrap import over_seeds, paired_contrast


def column(**sites):
    """(site, case) -> Dice."""
    return {(site, f"case-{index}"): value for site, values in sites.items() for index, value in enumerate(values)}


def test_the_mean_is_that_of_sites_and_of_classes_within_cases():
    first = {
        ("a", "1", "organ"): 0.8,
        ("a", "1", "lesion"): 0.4,
        ("a", "2", "organ"): 0.6,
        ("a", "2", "lesion"): 0.2,
        ("b", "1", "organ"): 0.5,
        ("b", "1", "lesion"): 0.1,
    }
    second = {key: 0.1 for key in first}
    # Cases 0.5, 0.3 at a, 0.2 at b; all six values alike would give 0.333, all three cases alike 0.333.
    assert paired_contrast(first, second).mean == pytest.approx((0.4 + 0.2) / 2)
    assert paired_contrast(second, first).mean == pytest.approx(-0.3)


def test_a_constant_difference_has_no_spread():
    first = column(a=[0.2, 0.9, 0.5], b=[0.1, 0.7])
    found = paired_contrast({key: value + 0.125 for key, value in first.items()}, first)
    assert (found.low, found.mean, found.high) == pytest.approx((0.125, 0.125, 0.125))


def test_cases_are_paired():
    """Between cases Dice differs widely, within a case hardly: only the latter counts."""
    second = column(a=np.linspace(0, 0.9, 40))
    first = {key: value + 0.05 for key, value in second.items()}
    found = paired_contrast(first, second)
    assert found.high - found.low < 1e-9


def test_the_interval_is_the_binomial_one_where_differences_are_0_or_1():
    count = 20
    first, second = column(a=[1.0] * 6 + [0.0] * 14), column(a=[0.0] * count)
    found = paired_contrast(first, second, resamples=200_000)
    shares = np.cumsum([comb(count, k) * 0.3**k * 0.7 ** (count - k) for k in range(count + 1)])
    assert found.low == pytest.approx(np.argmax(shares >= 0.025) / count)
    assert found.high == pytest.approx(np.argmax(shares >= 0.975) / count)


def test_the_interval_has_the_normal_width_of_many_cases_and_of_sites_drawn_apart():
    generator = np.random.default_rng(3)
    values = {"a": generator.normal(0.1, 0.2, 400), "b": generator.normal(0.3, 0.1, 100)}
    first, second = column(**values), column(a=[0.0] * 400, b=[0.0] * 100)
    found = paired_contrast(first, second, resamples=20_000)
    # The sites' means vary by themselves; that the sites differ adds nothing.
    error = np.sqrt(sum(site.var() / len(site) for site in values.values())) / 2
    middle = (values["a"].mean() + values["b"].mean()) / 2
    assert (found.low, found.high) == pytest.approx((middle - 1.96 * error, middle + 1.96 * error), abs=0.05 * error)


def test_the_level_is_the_share_inside():
    first, second = column(a=np.linspace(-1, 1, 50)), column(a=[0.0] * 50)
    wide, narrow = (paired_contrast(first, second, level=level) for level in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_same_seed_gives_the_same_bits_in_any_order():
    generator = np.random.default_rng(0)
    first, second = (column(b=generator.random(7), a=generator.random(9)) for _ in range(2))
    found = paired_contrast(first, second)
    assert paired_contrast(dict(reversed(first.items())), dict(reversed(second.items()))) == found
    assert paired_contrast(first, second, seed=1) != found


@pytest.mark.parametrize(
    ("first", "second", "part"),
    [
        ({("a", "1"): 0.5}, {("a", "2"): 0.5}, "'1'"),
        ({}, {}, "no score"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, part):
    with pytest.raises(ValueError, match=part):
        paired_contrast(first, second)


def test_over_seeds():
    assert over_seeds([{("a", "1"): 0.2}, {("a", "1"): 0.6}]) == {("a", "1"): pytest.approx(0.4)}
    with pytest.raises(ValueError, match="different cases"):
        over_seeds([{("a", "1"): 0.2}, {("a", "2"): 0.6}])

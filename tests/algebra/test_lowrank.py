"""The average of products against dense algebra in float64, its cost and what it refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import Largest, dense_mean, draw, drifted, even, product, relative, truncated

from fedpeft.algebra.lowrank import Factors, average_products

# Rows of [out, in, site ranks, rank of the result]: core, dense, both around the switch, more rank than matrix.
SHAPES = [
    [40, 30, [4, 4, 4], 4],
    [30, 50, [4, 1, 7], 5],
    [24, 24, [8, 8, 7], 8],
    [24, 24, [8, 8, 8], 8],
    [12, 20, [8, 8, 8], 8],
    [20, 6, [3, 3], 9],
    [16, 16, [2], 2],
]


@pytest.mark.parametrize(("out", "inn", "ranks", "rank"), SHAPES)
def test_product_is_the_truncated_average(out: int, inn: int, ranks: list[int], rank: int) -> None:
    """Both paths give the dense truncated SVD to 1e-12."""
    sites, (last,) = draw(1, out, inn, ranks), draw(2, out, inn, [rank])
    weights = [(k + 1) / sum(range(len(ranks) + 1)) for k in range(len(ranks))]
    found, _ = average_products(sites, weights, last)
    assert found.b.shape == (out, rank) and found.a.shape == (rank, inn)
    assert relative(product(found), truncated(dense_mean(sites, weights), rank)) < 1e-12


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    out=st.integers(1, 24),
    inn=st.integers(1, 24),
    ranks=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    rank=st.integers(1, 10),
    counts=st.lists(st.integers(1, 50), min_size=5, max_size=5),
    seed=st.integers(0, 10_000),
)
def test_any_shape_agrees_with_dense_algebra(
    out: int, inn: int, ranks: list[int], rank: int, counts: list[int], seed: int
) -> None:
    """Any shape, ranks and weights: as good as the best approximation, and reported as such."""
    sites, (last,) = draw(seed, out, inn, ranks), draw(seed + 1, out, inn, [rank])
    weights = [n / sum(counts[: len(ranks)]) for n in counts[: len(ranks)]]
    found, report = average_products(sites, weights, last)
    mean = dense_mean(sites, weights)
    best = truncated(mean, rank)
    # The SVD amplifies rounding where two singular values meet at the cut, so compare the error, not the subspace.
    assert relative(product(found), mean) == pytest.approx(relative(best, mean), abs=1e-10)
    assert report.truncation_error == pytest.approx(relative(best, mean), abs=1e-10)
    assert report.energy_kept == pytest.approx(1 - report.truncation_error**2, abs=1e-10)


@pytest.mark.parametrize("last_rank", [8, 12])
def test_core_and_dense_path_agree_at_the_switch(last_rank: int) -> None:
    """Zero columns push the same sites from one path to the other."""
    sites, (last,) = draw(3, 24, 40, [4, 4, 4]), draw(4, 24, 40, [last_rank])
    padded = [Factors(torch.cat([s.b, torch.zeros(24, 4)], 1), torch.cat([s.a, torch.zeros(4, 40)])) for s in sites]
    by_core, core_report = average_products(sites, even(3), last)
    by_sum, sum_report = average_products(padded, even(3), last)
    assert relative(by_sum.b, by_core.b) < 1e-10 and relative(by_sum.a, by_core.a) < 1e-10
    assert sum_report.truncation_error == pytest.approx(core_report.truncation_error, abs=1e-12)
    assert sum_report.factor_mean_error == pytest.approx(core_report.factor_mean_error, abs=1e-12)


@pytest.mark.parametrize(("out", "inn", "rank"), [(60, 50, 6), (12, 50, 6)])
def test_identical_sites_are_returned_exactly(out: int, inn: int, rank: int) -> None:
    """When all agree, nothing is lost and nothing is reported as lost."""
    (site,) = draw(5, out, inn, [rank])
    found, report = average_products([site] * 4, [0.1, 0.2, 0.3, 0.4], site)
    assert relative(product(found), product(site)) < 1e-13
    assert report.energy_kept == pytest.approx(1, abs=1e-14)
    assert report.truncation_error < 1e-13 and report.factor_mean_error < 1e-13


@pytest.mark.parametrize("drift", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("out", [60, 16])
def test_factor_mean_error_is_that_of_the_dense_product(out: int, drift: float) -> None:
    """The figure from the core is the dense one to 1e-12."""
    (last,) = draw(6, out, 70, [5])
    sites, weights = drifted(7, last, 4, drift), [0.4, 0.3, 0.2, 0.1]
    _, report = average_products(sites, weights, last)
    mean_b = sum(w * s.b for s, w in zip(sites, weights, strict=True))
    mean_a = sum(w * s.a for s, w in zip(sites, weights, strict=True))
    assert report.factor_mean_error == pytest.approx(relative(mean_b @ mean_a, dense_mean(sites, weights)), rel=1e-12)


def test_factor_mean_error_needs_equal_ranks() -> None:
    """There is no mean of factors of different ranks."""
    sites, (last,) = draw(8, 20, 20, [2, 3]), draw(9, 20, 20, [3])
    assert average_products(sites, even(2), last)[1].factor_mean_error is None


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_scale_does_not_change_the_relative_figures(scale: float) -> None:
    """No absolute tolerance hides small updates."""
    sites, (last,) = draw(20, 30, 30, [3, 3]), draw(21, 30, 30, [3])
    scaled = [Factors(site.b * scale, site.a) for site in sites]
    found, report = average_products(scaled, even(2), last)
    assert relative(product(found), scale * truncated(dense_mean(sites, even(2)), 3)) < 1e-12
    assert report.factor_mean_error == pytest.approx(average_products(sites, even(2), last)[1].factor_mean_error)


@pytest.mark.parametrize("out", [40, 8])
def test_runs_repeat_bit_for_bit_and_site_order_is_rounding(out: int) -> None:
    """Same order, same bits; another order, same numbers."""
    sites, (last,) = draw(22, out, 30, [4, 4, 4]), draw(23, out, 30, [4])
    weights = [0.5, 0.3, 0.2]
    one, _ = average_products(sites, weights, last)
    two, _ = average_products(sites, weights, last)
    back, _ = average_products(sites[::-1], weights[::-1], last)
    assert torch.equal(one.b, two.b) and torch.equal(one.a, two.a)
    assert relative(back.b, one.b) < 1e-10 and relative(back.a, one.a) < 1e-10


def test_result_has_the_dtype_of_the_last_factors_and_float64_inside() -> None:
    """float32 sites lose digits once, at the end."""
    (last,) = draw(24, 40, 40, [4])
    single = [Factors(s.b.float(), s.a.float()) for s in drifted(25, last, 3, 0.1)]
    found, _ = average_products(single, even(3), Factors(last.b.float(), last.a.float()))
    exact, _ = average_products(single, even(3), last)
    assert found.b.dtype == found.a.dtype == torch.float32
    assert relative(product(exact), truncated(dense_mean([s.double() for s in single], even(3)), 4)) < 1e-12
    assert relative(found.b.double(), exact.b) < 1e-7


def test_core_path_never_forms_the_dense_matrix() -> None:
    """No tensor of out * in elements appears at SAM's size."""
    sites, (last,) = draw(27, 768, 768, [32] * 6), draw(28, 768, 768, [32])
    with Largest() as seen:
        average_products(sites, even(6), last)
    assert seen.numel <= 768 * 32 * 6 < 768 * 768


def test_cost_does_not_grow_with_many_sites() -> None:
    """The largest tensor for 200 sites is that for 30."""
    largest = []
    (last,) = draw(29, 128, 128, [32])
    for count in (30, 200):
        sites = draw(30, 128, 128, [32] * count)
        with Largest() as seen:
            average_products(sites, even(count), last)
        largest.append(seen.numel)
    assert largest == [128 * 128, 128 * 128]


@pytest.mark.parametrize(
    "weights", [[0.5, 0.6], [1.0], [1.5, -0.5], [float("nan"), 1.0], [float("inf"), 1.0], [], [0.2] * 5]
)
def test_bad_weights_are_refused(weights: list[float]) -> None:
    """Weights must be as many as sites, finite, >= 0, with sum 1."""
    sites = draw(31, 8, 8, [2, 2])
    with pytest.raises(ValueError, match="weight"):
        average_products(sites, weights, sites[0])


def test_no_sites_are_refused() -> None:
    """An empty round has no average."""
    with pytest.raises(ValueError, match="one or more sites"):
        average_products([], [], draw(32, 8, 8, [2])[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["b", "a", "last"])
def test_values_that_are_not_finite_are_refused_by_name(where: str, value: float) -> None:
    """The message says whose values they are."""
    sites, (last,) = draw(33, 8, 8, [2, 2]), draw(34, 8, 8, [2])
    {"b": sites[1].b, "a": sites[1].a, "last": last.a}[where][0, 0] = value
    with pytest.raises(ValueError, match="last round" if where == "last" else "site 1"):
        average_products(sites, even(2), last)


def test_shapes_that_do_not_fit_are_refused() -> None:
    """The message has the shapes got and expected."""
    with pytest.raises(ValueError, match=r"\(8, 2\), \(3, 8\)"):
        Factors(torch.zeros(8, 2), torch.zeros(3, 8))
    with pytest.raises(ValueError, match=r"site 1.*\(9, 8\).*\(8, 8\)"):
        average_products(draw(35, 8, 8, [2]) + draw(35, 9, 8, [2]), even(2), draw(36, 8, 8, [2])[0])

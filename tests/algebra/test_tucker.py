"""The average of forms with shared bases: its fit against dense algebra, its report, its cost, what it refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import Largest, dense, dense_average, even, forms, near, regauged, relative, scaled, single
from torch import Tensor

from fedpeft.algebra.average import normalised
from fedpeft.algebra.rules.mean import weighted_mean
from fedpeft.algebra.tucker import Tucker, average_tucker

# Rows of [sites, out, in, r, L, r' or None]: small cores, K r beyond a side or both, one slot, r or r' beyond the size.
SHAPES = [
    [3, 40, 30, 4, 6, None],
    [5, 12, 30, 4, 6, None],
    [6, 10, 11, 4, 3, None],
    [3, 20, 20, 3, 1, None],
    [2, 3, 20, 5, 4, None],
    [3, 40, 30, 4, 20, 4],
    [4, 12, 10, 3, 5, 8],
    [3, 20, 20, 4, 1, 4],
]


def mean_form(sites: list[Tucker], weights: list[float]) -> Tucker:
    """Return the naive mean of all parts."""
    return sites[0].like([weighted_mean(x, weights) for x in zip(*(site.parts for site in sites), strict=True)])


def fit(tensor: Tensor, bases: dict[int, Tensor]) -> float:
    """Return the relative error of the best core for given bases, by pseudo-inverses."""
    kept = tensor
    for mode, basis in bases.items():
        projector = basis @ torch.linalg.pinv(basis, rtol=1e-12)
        kept = torch.einsum("ij,j...->i...", projector, kept.movedim(mode, 0)).movedim(0, mode)
    return relative(kept, tensor)


def reference(tensor: Tensor, ranks: dict[int, int]) -> Tensor:
    """Return the best Tucker form of a dense tensor, by HOOI on Gram matrices of all its entries."""

    def top(x: Tensor, mode: int) -> Tensor:
        rows = x.movedim(mode, 0).reshape(x.shape[mode], -1)
        return torch.linalg.eigh(rows @ rows.mT).eigenvectors.flip(1)[:, : ranks[mode]]

    def onto(x: Tensor, projectors: dict[int, Tensor]) -> Tensor:
        for mode, q in projectors.items():
            x = torch.tensordot(q @ q.mT, x, dims=([1], [mode])).movedim(0, mode)
        return x

    bases = {mode: top(tensor, mode) for mode in ranks}
    for _ in range(1000):
        for mode in ranks:
            bases[mode] = top(onto(tensor, {m: q for m, q in bases.items() if m != mode}), mode)
    return onto(tensor, bases)


@pytest.mark.parametrize("shape", SHAPES)
def test_fit_is_that_of_a_dense_decomposition(shape: list) -> None:
    """HOOI on the full tensors finds nothing better."""
    sites, weights = forms(1, *shape), normalised(range(1, shape[0] + 1))
    found, report = average_tucker(sites, weights, sites[0])
    average = dense_average(sites, weights)
    best = reference(average, {mode: sites[0].core.shape[mode] for mode in sites[0].bases})
    assert relative(dense(found), average) <= relative(best, average) + 1e-6
    assert report.truncation_error == pytest.approx(relative(dense(found), average), abs=1e-12)


@pytest.mark.parametrize("third", [None, 3])
def test_product_is_that_of_a_dense_decomposition_at_small_drift(third: int | None) -> None:
    """Where the optimum is clear, the tensors agree and not the fit alone."""
    (base,) = forms(2, 1, 30, 25, 4, 7, third)
    sites = near(base, forms(3, 4, 30, 25, 4, 7, third), 0.1)
    found, _ = average_tucker(sites, even(4), base)
    best = reference(dense_average(sites, even(4)), {mode: base.core.shape[mode] for mode in base.bases})
    assert relative(dense(found), best) < 1e-7


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 5), st.integers(1, 6)),
    third=st.none() | st.integers(1, 8),
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any),
    drift=st.none() | st.sampled_from([1e-6, 0.1, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_no_site_and_no_mean_fits_better(
    sizes: tuple[int, int, int, int], third: int | None, counts: list[int], drift: float | None, seed: int
) -> None:
    """Any shapes, weights and drift: float32 sites, a float64 result, and a report that is true."""
    sites, (base,) = forms(seed, len(counts), *sizes, third), forms(seed + 1, 1, *sizes, third)
    sites = [single(site) for site in (near(base, sites, drift) if drift else sites)]
    weights = normalised(counts)
    found, report = average_tucker(sites, weights, base)
    exact = [site.like([x.double() for x in site.parts]) for site, n in zip(sites, counts, strict=True) if n]
    average, mean = dense_average(sites, weights), mean_form(exact, [w for w in weights if w])
    error = relative(dense(found), average)
    best_site = min(fit(average, site.bases) for site in exact)
    assert [x.shape for x in found.parts] == [x.shape for x in base.parts]
    assert error <= min(best_site, relative(dense(mean), average)) + 1e-10
    assert report.truncation_error == pytest.approx(error, abs=1e-10)
    assert report.energy_kept == pytest.approx(1 - error**2, abs=1e-10) and report.energy_kept <= 1
    assert report.factor_mean_error == pytest.approx(relative(dense(mean), average), abs=1e-10)
    assert report.best_site_error == pytest.approx(best_site, abs=1e-10)


def test_figures_at_the_size_of_sam() -> None:
    """At 10 % drift the mean of the factors loses 3 % more; no tensor is as large as the dense updates."""
    (base,) = forms(4, 1, 768, 768, 32, 24)
    sites = near(base, forms(5, 6, 768, 768, 32, 24), 0.1)
    with Largest() as seen:
        found, report = average_tucker(sites, even(6), single(base))
    assert report.truncation_error == pytest.approx(0.0062, abs=2e-4)
    assert report.factor_mean_error == pytest.approx(0.0064, abs=2e-4)
    assert seen.numel <= 24 * (6 * 32) ** 2
    mean = mean_form(sites, even(6))
    assert max(relative(x.double(), y) for x, y in zip(found.parts, mean.parts, strict=True)) < 2e-3


@pytest.mark.parametrize("third", [None, 3])
def test_product_does_not_depend_on_the_gauges_of_the_sites(third: int | None) -> None:
    """Sites may send the same products in any basis."""
    sites, weights = forms(6, 3, 30, 25, 4, 7, third), [0.5, 0.3, 0.2]
    found, report = average_tucker(sites, weights, sites[0])
    turned = [regauged(site, 100 + k, digits=1) for k, site in enumerate(sites)]
    again, other = average_tucker(turned, weights, sites[0])
    assert relative(dense(again), dense(found)) < 1e-6
    assert other.truncation_error == pytest.approx(report.truncation_error, abs=1e-9)


@pytest.mark.parametrize("third", [None, 3])
def test_runs_repeat_bit_for_bit_and_site_order_is_rounding(third: int | None) -> None:
    """Same order, same bits; another order, same numbers."""
    (base,) = forms(7, 1, 30, 25, 4, 7, third)
    sites, weights = near(base, forms(8, 3, 30, 25, 4, 7, third), 0.5), [0.5, 0.3, 0.2]
    (one, report), (two, again) = (average_tucker(sites, weights, base) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(one.parts, two.parts, strict=True)) and report == again
    back, _ = average_tucker(sites[::-1], weights[::-1], base)
    assert max(relative(x, y) for x, y in zip(back.parts, one.parts, strict=True)) < 1e-6


def test_a_weight_of_zero_leaves_a_site_out() -> None:
    """However large its tensors, the bits stay."""
    sites = forms(9, 2, 20, 20, 3, 5)
    alone, _ = average_tucker(sites, [0.5, 0.5], sites[0])
    both, _ = average_tucker([*sites, scaled(sites[0], 0, 1e9)], [0.5, 0.5, 0.0], sites[0])
    assert all(torch.equal(x, y) for x, y in zip(both.parts, alone.parts, strict=True))


def test_many_sites_cost_no_more_memory() -> None:
    """The largest tensor for 40 sites is that for 8: the dense updates, or one stack of bases."""
    largest = []
    for count in (8, 40):
        sites = forms(10, count, 32, 32, 8, 6)
        with Largest() as seen:
            average_tucker(sites, even(count), sites[0])
        largest.append(seen.numel)
    assert largest == [6 * 32 * 32, max(6 * 32 * 32, 40 * 8 * 32)]


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10])
def test_scale_does_not_change_the_relative_figures(scale: float) -> None:
    """No absolute tolerance hides small updates."""
    sites = forms(11, 3, 20, 20, 3, 5)
    found, report = average_tucker(sites, even(3), sites[0])
    again, other = average_tucker([scaled(site, 0, scale) for site in sites], even(3), sites[0])
    assert relative(dense(again), scale * dense(found)) < 1e-9
    assert other.truncation_error == pytest.approx(report.truncation_error, abs=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_values_that_are_not_finite_are_refused_by_name(part: int, value: float) -> None:
    """The message says whose values they are."""
    sites = forms(12, 2, 8, 8, 2, 3)
    sites[1].parts[part].view(-1)[0] = value
    with pytest.raises(ValueError, match="site 1"):
        average_tucker(sites, even(2), sites[0])
    with pytest.raises(ValueError, match="the last round"):
        average_tucker(sites[:1], [1.0], sites[1])


def test_what_does_not_fit_is_refused() -> None:
    """Shapes, weights and sites are named; nothing overflows in silence."""
    sites = forms(13, 2, 8, 8, 2, 3)
    for core, bases in [((3, 2, 2), {1: (8, 3)}), ((2, 2), {1: (8, 2)}), ((3, 2, 2), {1: (2,)})]:
        with pytest.raises(ValueError, match="core of three modes and bases"):
            Tucker(torch.zeros(core), {mode: torch.zeros(shape) for mode, shape in bases.items()})
    with pytest.raises(ValueError, match=r"site 1 has core \(3, 2, 2\), basis of mode 1 \(9, 2\).*the last.*\(8, 2\)"):
        average_tucker([sites[0], *forms(13, 1, 9, 8, 2, 3)], even(2), sites[0])
    for weights in ([0.5], [0.5, 0.6], [1.5, -0.5], [float("nan"), 1.0]):
        with pytest.raises(ValueError, match="weight"):
            average_tucker(sites, weights, sites[0])
    with pytest.raises(ValueError, match="one or more sites"):
        average_tucker([], [], sites[0])
    huge = [scaled(site, 0, 1e200) for site in sites]
    with pytest.raises(ValueError, match="overflows float64"):
        average_tucker(huge, even(2), sites[0])
    with pytest.raises(ValueError, match="overflows torch.float32"):
        average_tucker([scaled(scaled(site, 0, 1e45), 1, 1e45) for site in sites], even(2), single(sites[0]))

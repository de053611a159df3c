"""The average of products against dense algebra in float64, its cost, and what it leaves to the optimiser."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


class Largest(TorchDispatchMode):
    """Record the size of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        """Start from nothing seen."""
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and look at what it returns."""
        result = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        return result


def draw(seed: int, out: int, inn: int, ranks: list[int]) -> list[Factors]:
    """Return independent random factors, one for each rank."""
    g = torch.Generator().manual_seed(seed)
    double = torch.float64
    return [
        Factors(torch.randn(out, r, generator=g, dtype=double), torch.randn(r, inn, generator=g, dtype=double))
        for r in ranks
    ]


def drifted(seed: int, base: Factors, count: int, drift: float) -> list[Factors]:
    """Return `count` copies of `base` with a relative perturbation."""
    noise = draw(seed, *base.shape, [base.rank] * count)
    return [Factors(base.b + drift * x.b, base.a + drift * x.a) for x in noise]


def even(count: int) -> list[float]:
    """Return the uniform weights."""
    return [1 / count] * count


def product(factors: Factors) -> Tensor:
    """Return B A."""
    return factors.b @ factors.a


def dense_mean(sites: list[Factors], weights: list[float]) -> Tensor:
    """Return the average product, term by term."""
    return sum(w * product(site) for site, w in zip(sites, weights, strict=True))


def truncated(matrix: Tensor, rank: int) -> Tensor:
    """Return the best approximation of that rank."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def relative(x: Tensor, y: Tensor) -> float:
    """Return the relative Frobenius distance of x from y."""
    return float((x - y).norm() / y.norm())


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


@pytest.mark.parametrize(("drift", "most"), [(0.02, 0.05), (0.3, 0.5)])
def test_alignment_keeps_the_basis_of_the_last_round(drift: float, most: float) -> None:
    """B moves as little as the sites drifted; the plain SVD basis jumps."""
    g = torch.Generator().manual_seed(10)
    # Balanced, with a spectrum that the SVD basis permutes and flips.
    start = Factors(torch.zeros(80, 6), torch.randn(6, 60, generator=g))
    last, _ = average_products(draw(11, 80, 60, [6]), [1.0], start)
    sites = drifted(12, last, 3, drift)
    found, _ = average_products(sites, even(3), last)
    u, s, vh = torch.linalg.svd(dense_mean(sites, even(3)))
    plain = u[:, :6] * s[:6].sqrt()
    last_b = last.b.double()
    assert relative(product(found).double(), (u[:, :6] * s[:6]) @ vh[:6]) < 1e-6  # float32, as `last` is
    assert relative(found.b.double(), last_b) < most < relative(plain, last_b)


def test_result_does_not_depend_on_the_signs_of_the_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alignment makes the result unique, so a LAPACK may choose its signs."""
    sites, (last,) = draw(13, 30, 40, [3, 3]), draw(14, 30, 40, [4])
    found, _ = average_products(sites, even(2), last)
    svd = torch.linalg.svd

    def flipped(x: Tensor, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vh = svd(x, full_matrices=full_matrices)
        sign = torch.tensor([(-1.0) ** k for k in range(len(s))], dtype=x.dtype)
        return u * sign, s, sign[:, None] * vh

    monkeypatch.setattr(torch.linalg, "svd", flipped)
    again, _ = average_products(sites, even(2), last)
    assert relative(again.b, found.b) < 1e-12 and relative(again.a, found.a) < 1e-12


@pytest.mark.parametrize("out", [40, 8])
@pytest.mark.parametrize("used", [1, 2, 5])
def test_unused_directions_keep_a_and_a_gradient(out: int, used: int) -> None:
    """0 < q < r: the product is exact, and B can learn where it is zero."""
    rank = 6
    (site,), (last,) = draw(15, out, 30, [used]), draw(16, out, 30, [rank])
    found, report = average_products([site, site], even(2), last)
    assert relative(product(found), product(site)) < 1e-12 and report.energy_kept == pytest.approx(1)
    u, s, vh = torch.linalg.svd(found.b)
    assert float(s[used:].max()) < 1e-12 * float(s[0]) and float(s[used - 1]) > 1e-3
    unused = vh[used:]  # the null space of B, in rank coordinates
    assert relative(unused @ found.a, unused @ last.a) < 1e-10

    b = found.b.clone().requires_grad_()
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(17), dtype=torch.float64)
    (b @ (found.a @ x)).sub(1).square().sum().backward()
    assert float((b.grad @ unused.mT).norm(dim=0).min()) > 1e-3
    assert float(torch.maximum(found.b.abs().amax(0), found.a.abs().amax(1)).min()) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("out", [40, 8])
def test_zero_average_keeps_a_bit_for_bit(out: int, dtype: torch.dtype) -> None:
    """A zero average, by B = 0 or by cancellation between sites: A is untouched."""
    (last,) = draw(18, out, 30, [5])
    last = Factors(last.b.to(dtype), last.a.to(dtype))
    last.a[0, :2] = torch.tensor([-0.0, 1e-38], dtype=dtype)
    (site,) = draw(19, out, 30, [5])
    for sites in ([Factors(0 * site.b, site.a)] * 2, [site, Factors(-site.b, site.a)]):
        found, report = average_products(sites, even(2), last)
        assert not found.b.any() and found.b.dtype == found.a.dtype == dtype
        assert torch.equal(found.a.view(torch.uint8), last.a.view(torch.uint8)) and found.a is not last.a
        assert (report.energy_kept, report.truncation_error, report.factor_mean_error) == (1.0, 0.0, None)


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


def test_gradients_of_parameters_stay_out() -> None:
    """Parameters as arguments leave no graph behind."""
    (site,) = draw(26, 10, 10, [2])
    leaf = Factors(site.b.requires_grad_(), site.a.requires_grad_())
    found, _ = average_products([leaf, leaf], even(2), leaf)
    assert not found.b.requires_grad and not found.a.requires_grad


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

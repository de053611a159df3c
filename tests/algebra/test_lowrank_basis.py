"""What the average of products leaves to the optimiser: the basis, the directions that nobody uses, the gradients."""

import pytest
import torch
from samples import dense_mean, draw, drifted, even, product, relative
from torch import Tensor

from fedpeft.algebra.lowrank import Factors, average_products


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


def test_gradients_of_parameters_stay_out() -> None:
    """Parameters as arguments leave no graph behind."""
    (site,) = draw(26, 10, 10, [2])
    leaf = Factors(site.b.requires_grad_(), site.a.requires_grad_())
    found, _ = average_products([leaf, leaf], even(2), leaf)
    assert not found.b.requires_grad and not found.a.requires_grad

"""Which tensors carry the average: near the sites' mean, exact in float32, and able to learn where nobody did yet."""

import pytest
import torch
from samples import dense, dense_average, even, forms, near, regauged, relative, scaled, single

from fedpeft.algebra.rules.mean import weighted_mean
from fedpeft.algebra.tucker import Tucker, average_tucker

# FacT-TT; FacT-TK with a third width below and beyond the number of slots, where a part of the core is always unused.
KINDS = [None, 4, 12]


def farthest(found: Tucker, expected: Tucker) -> float:
    """Return the largest relative distance of a part from the expected one."""
    return max(relative(x.double(), y.double()) for x, y in zip(found.parts, expected.parts, strict=True))


def mean_parts(sites: list[Tucker], weights: list[float]) -> Tucker:
    """Return the mean of all parts."""
    return sites[0].like([weighted_mean(x, weights) for x in zip(*(site.parts for site in sites), strict=True)])


def gradients(form: Tucker) -> list[torch.Tensor]:
    """Return the gradient of every part for a loss that asks for a change everywhere."""
    leaves = form.like([x.detach().double().requires_grad_() for x in form.parts])
    goal = torch.randn(dense(form).shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    (dense(leaves) * goal).sum().backward()
    return [x.grad for x in leaves.parts]


@pytest.mark.parametrize("third", KINDS)
@pytest.mark.parametrize("digits", [0, 2, 4])
def test_nothing_moves_where_all_sites_agree(third: int | None, digits: int) -> None:
    """V, S and U come back, however ill-conditioned they are."""
    (site,) = [regauged(x, 1, digits / (1 if third is None else 2)) for x in forms(2, 1, 40, 30, 6, 8, third)]
    found, report = average_tucker([site] * 4, [0.1, 0.2, 0.3, 0.4], site)
    assert farthest(found, site) < 1e-12 and torch.equal(found.core, mean_parts([site] * 4, [0.1, 0.2, 0.3, 0.4]).core)
    assert report.truncation_error < 1e-12 and report.energy_kept == pytest.approx(1)


@pytest.mark.parametrize("third", KINDS)
@pytest.mark.parametrize("shape", [(40, 30, 6, 8), (5, 30, 6, 8), (40, 30, 6, 3)])
def test_one_site_gets_its_own_float32_tensors_back(third: int | None, shape: tuple[int, int, int, int]) -> None:
    """A federation of one changes nothing."""
    site = single(forms(3, 1, *shape, third)[0])
    found, report = average_tucker([site], [1.0], site)
    assert all(x.dtype == torch.float32 and x.is_contiguous() for x in found.parts)
    assert farthest(found, site) < 1e-6 and relative(dense(found), dense(site)) < 1e-6
    assert report.truncation_error < 1e-12 and report.best_site_error < 1e-12 and report.rounding_error < 1e-6


@pytest.mark.parametrize("third", KINDS)
@pytest.mark.parametrize(("drift", "most"), [(0.01, 1e-4), (0.1, 1e-2), (0.3, 0.1)])
def test_tensors_stay_near_the_mean(third: int | None, drift: float, most: float) -> None:
    """The distance from the mean is of second order in the drift."""
    (base,) = forms(4, 1, 60, 50, 4, 8, third)
    sites = near(base, forms(5, 5, 60, 50, 4, 8, third), drift)
    found, _ = average_tucker(sites, even(5), base)
    assert farthest(found, mean_parts(sites, even(5))) < most


@pytest.mark.parametrize("third", KINDS)
@pytest.mark.parametrize("digits", [0, 1, 2])
@pytest.mark.parametrize("drift", [0.0, 1e-6, 1e-3, 0.1, None])
def test_float32_keeps_the_product_in_every_gauge(third: int | None, digits: int, drift: float | None) -> None:
    """Neither bases that cancel in the mean nor ill-conditioned ones cost more than a few digits."""
    bases = forms(6, 4, 40, 30, 6, 8, third)
    # Three bases of condition 10^4 would leave nothing to compare with, even in float64.
    digits *= 2 if third is None else 1
    if drift is None:  # the same product, each site in its own basis
        sites = [regauged(bases[0], k, digits) for k in range(4)]
    else:
        sites = near(regauged(bases[0], 7, digits), bases, drift)
    exact, _ = average_tucker(sites, even(4), sites[0])
    found, report = average_tucker(sites, even(4), single(sites[0]))
    error = float((dense(found) - dense(exact)).norm() / dense_average(sites, even(4)).norm())
    assert error < 1e-5 and error < report.rounding_error + 1e-7 and report.rounding_error < 1e-5


@pytest.mark.parametrize("third", KINDS)
def test_bases_that_cancel_in_the_mean_are_recovered(third: int | None) -> None:
    """Two sites of one product, V and S with opposite signs: no part of the average becomes tiny or huge for it."""
    (site,) = forms(8, 1, 40, 30, 6, 8, third)
    found, report = average_tucker([site, scaled(scaled(site, 0, -1), -1, -1)], even(2), single(site))
    assert relative(dense(found), dense(site)) < 1e-6 and report.factor_mean_error == pytest.approx(1)
    assert all(0.5 < float(x.norm() / y.norm()) < 2 for x, y in zip(found.parts, site.parts, strict=True))


@pytest.mark.parametrize("third", KINDS)
def test_the_initial_model_comes_back(third: int | None) -> None:
    """V = 0 at all sites: V stays zero, all else is the mean bit for bit, and V has a gradient in every column."""
    sites = [scaled(site, 0, 0.0) for site in forms(9, 3, 40, 30, 6, 8, third)]
    found, report = average_tucker(sites, [0.5, 0.3, 0.2], single(sites[0]))
    mean = mean_parts(sites, [0.5, 0.3, 0.2])
    assert all(torch.equal(x, y.float()) for x, y in zip(found.parts, mean.parts, strict=True))
    assert (report.energy_kept, report.truncation_error, report.sweeps) == (1.0, 0.0, 0)
    assert report.factor_mean_error is report.best_site_error is report.rounding_error is None
    assert not found.bases[1].any() and float(gradients(found)[0].norm(dim=0).min()) > 1


@pytest.mark.parametrize("third", KINDS)
@pytest.mark.parametrize("part", [0, 1, -1])
def test_sites_that_cancel_leave_one_part_zero_and_a_gradient(third: int | None, part: int) -> None:
    """Whichever part cancels becomes zero; the others stay the mean."""
    (site,) = forms(10, 1, 40, 30, 6, 8, third)
    found, report = average_tucker([site, scaled(site, part, -1)], even(2), single(site))
    assert not dense(found).any() and report.truncation_error == 0
    cancelled = part % len(found.parts)
    kept = [i for i in range(len(found.parts)) if i != cancelled]
    assert not found.parts[cancelled].any() and all(torch.equal(found.parts[i], site.parts[i].float()) for i in kept)
    live = [float(g.norm()) for g in gradients(found)]
    assert live[cancelled] > 1 and not any(live[i] for i in kept)


def test_two_parts_that_cancel_get_one_back_from_the_last_round() -> None:
    """V and S are zero in the mean; with both at zero nothing would ever learn."""
    (site,), (last,) = forms(11, 1, 20, 20, 3, 4), forms(12, 1, 20, 20, 3, 4)
    sites = [scaled(scaled(site, 0, v), -1, s) for v in (1, -1) for s in (1, -1)]
    found, _ = average_tucker(sites, even(4), last)
    assert not found.bases[1].any() and torch.equal(found.core, last.core)
    assert relative(found.bases[2], site.bases[2]) < 1e-15 and float(gradients(found)[0].norm()) > 1


@pytest.mark.parametrize("third", KINDS)
@pytest.mark.parametrize("used", [1, 3])
def test_unused_directions_keep_the_core_and_a_gradient(third: int | None, used: int) -> None:
    """Sites that use a part of V: the product is exact, S is the mean's, and V can learn in the rest."""
    (site,) = forms(13, 1, 40, 30, 6, 8, third)
    mixer, _ = torch.linalg.qr(site.bases[2][:6])
    site = site.like([site.bases[1] @ mixer[:, :used] @ mixer[:, :used].mT, *site.parts[1:]])
    sites = near(site, forms(14, 3, 40, 30, 6, 8, third), 0.0)
    found, report = average_tucker(sites, even(3), site)
    assert relative(dense(found), dense(site)) < 1e-12 and report.energy_kept == pytest.approx(1)
    assert relative(found.bases[1], site.bases[1]) < 1e-10 and relative(found.core, site.core) < 1e-10
    unused = mixer[:, used:]
    assert float((found.bases[1] @ unused).norm()) < 1e-10
    assert float((gradients(found)[0] @ unused).norm(dim=0).min()) > 1e-3


@pytest.mark.parametrize("third", KINDS)
@pytest.mark.parametrize("left", [1e-9, 1e-5, 1e-2])
def test_sites_that_nearly_cancel_leave_an_exact_rest(third: int | None, left: float) -> None:
    """A small difference of large products is kept in float32 to its own precision."""
    (site,) = forms(15, 1, 40, 30, 6, 8, third)
    for part in (0, -1):
        sites = [site, scaled(site, part, -1 - left)]
        found, report = average_tucker(sites, even(2), single(site))
        assert relative(dense(found), -left / 2 * dense(site)) < max(1e-6, 1e-15 / left)
        assert report.rounding_error < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_results_have_the_dtypes_of_the_last_round_and_no_graph(dtype: torch.dtype) -> None:
    """Parameters as arguments leave no graph behind; every part keeps its dtype."""
    sites = [x.like([p.requires_grad_() for p in x.parts]) for x in forms(16, 2, 20, 20, 3, 5)]
    last = sites[0].like([sites[0].parts[0].to(dtype), *sites[0].parts[1:]])
    found, report = average_tucker(sites, even(2), last)
    assert [x.dtype for x in found.parts] == [dtype, torch.float64, torch.float64]
    assert not any(x.requires_grad for x in found.parts)
    assert report.rounding_error <= 2 * torch.finfo(dtype).eps

"""The average of low-rank updates, exactly.

Sites hold factors B_k (out, r_k) and A_k (r_k, in); what a network sees is their product. The mean of the factors is
not the mean of the products, so the server averages sum_k w_k B_k A_k and truncates it to the rank again (FLAP-SAM;
FlexLoRA, NeurIPS 2024). This file does that without the (out, in) matrix, and measures what both averages lose.
A LoRA scale common to all sites commutes with the average; sites that scale differently multiply it into B first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum, isfinite
from typing import cast

import torch
from torch import Tensor

from fedpeft.algebra.align import procrustes
from fedpeft.algebra.finite import all_finite

WEIGHT_TOLERANCE = 1e-6
# Sites that cancel leave noise of a few eps times their norms: below 2 measured, with 200 sites; 16 leaves a margin.
NOISE = 16 * torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Factors:
    """A low-rank matrix b @ a.

    Attributes:
        b: (out, r), floating point.
        a: (r, in), floating point.

    Raises:
        ValueError: if the shapes do not fit.
    """

    b: Tensor
    a: Tensor

    def __post_init__(self) -> None:
        """Refuse factors that have no product."""
        if self.b.ndim != 2 or self.a.ndim != 2 or self.b.shape[1] != self.a.shape[0]:
            raise ValueError(f"B (out, r) and A (r, in) expected, got {tuple(self.b.shape)}, {tuple(self.a.shape)}")

    @property
    def rank(self) -> int:
        """The width r of the factors, an upper bound of the rank of their product."""
        return self.b.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in), the shape of the product."""
        return self.b.shape[0], self.a.shape[1]

    def double(self) -> "Factors":
        """Return the same factors in float64."""
        return Factors(self.b.double(), self.a.double())


@dataclass(frozen=True)
class ProductReport:
    """What averaging one module lost, in float64, before the result is rounded to its dtype.

    Attributes:
        energy_kept: share of sum sigma^2 that the rank keeps, 0 to 1; 1 if the average is zero.
        truncation_error: relative Frobenius error of the returned product, 0 to 1; 0 if the average is zero.
        factor_mean_error: relative Frobenius error that (sum w B)(sum w A) would have made; None if the sites' ranks
            differ or the average is zero.
    """

    energy_kept: float
    truncation_error: float
    factor_mean_error: float | None


@dataclass(frozen=True, eq=False)
class _Core:
    """The average as left(matrix) right(.)^T, where left and right apply matrices with orthonormal columns.

    `factor_mean` is (sum w B)(sum w A) in the same coordinates.
    """

    matrix: Tensor
    factor_mean: Tensor | None
    left: Callable[[Tensor], Tensor]
    right: Callable[[Tensor], Tensor]


@torch.no_grad()
def average_products(
    sites: Sequence[Factors], weights: Sequence[float], last: Factors
) -> tuple[Factors, ProductReport]:
    """Return the best approximation of sum_k w_k B_k A_k that has the rank of `last`, in the basis of `last`.

    With S = [w_k B_k] = Q1 R1 and T = [A_k], T^T = Q2 R2, the average is S T = Q1 (R1 R2^T) Q2^T: the SVD of the small
    core R1 R2^T gives the singular values of the average, and each factor takes sqrt(sigma). Where sum r_k >= min(out,
    in), the core is no smaller than the average, which is then summed densely at a cost linear in the number of sites.

    The SVD basis is arbitrary and jumps between rounds, which would spoil the optimiser moments that sites keep, hence:
    with P = [B_last; A_last^T], Q = [B_q; A_q^T], Q^T P = Y D X^T and W = X Y^T (the rotation closest to the last
    round), B = B_q W^T and A = W A_q + (I - W W^T) A_last. Since W^T W = I and W^T (I - W W^T) = 0, B A = B_q A_q.
    Directions that the average leaves unused have B = 0 and the last A: their B still receives a gradient.

    Args:
        sites: K >= 1 factors of one (out, in); the ranks r_k may differ.
        weights: K numbers >= 0 that sum to 1.
        last: the factors that the sites received, (out, r) and (r, in); r is the rank of the result.

    Returns:
        The factors, (out, r) and (r, in) in the dtype of `last`, and what the truncation lost. If the average is zero
        (below float64 noise of the terms), B = 0 and A is that of `last` bit for bit.

    Raises:
        ValueError: if shapes or weights do not fit or a value is not finite.
    """
    check_weights(weights, len(sites))
    _check_factors(sites, last)
    exact = [site.double() for site in sites]
    wide = sum(site.rank for site in exact) >= min(last.shape)
    core = _core_dense(exact, weights) if wide else _core_small(exact, weights)
    u, sigma, vh = torch.linalg.svd(core.matrix, full_matrices=False)
    size = fsum(w * float(site.b.norm() * site.a.norm()) for site, w in zip(exact, weights, strict=True))
    significant = int((sigma > NOISE * size).sum())
    q = min(significant, last.rank)
    root = sigma[:q].sqrt()
    found = Factors(core.left(u[:, :q] * root), core.right(vh[:q].mT * root).mT)
    return _aligned(found, last), _report(core, sigma, q)


def check_weights(weights: Sequence[float], count: int) -> None:
    """Raise ValueError unless `weights` are `count` >= 1 finite numbers >= 0 whose sum is 1 within 1e-6."""
    if count < 1 or len(weights) != count:
        raise ValueError(f"one weight for each of one or more sites expected, got {len(weights)} for {count} sites")
    if not all(isfinite(w) and w >= 0 for w in weights) or abs(fsum(weights) - 1) > WEIGHT_TOLERANCE:
        raise ValueError(f"finite weights >= 0 with sum 1 expected (see average.normalised), got {list(weights)}")


def _check_factors(sites: Sequence[Factors], last: Factors) -> None:
    """Raise ValueError unless all products have one shape and all values are finite."""
    for name, factors in [*((f"site {k}", site) for k, site in enumerate(sites)), ("the last round", last)]:
        if factors.shape != last.shape:
            raise ValueError(f"{name} has a product of shape {factors.shape}, the last round has {last.shape}")
        if not (all_finite(factors.b) and all_finite(factors.a)):
            raise ValueError(
                f"the factors of {name} hold NaN or infinity: leave this site out or lower its learning rate"
            )


def _core_small(sites: Sequence[Factors], weights: Sequence[float]) -> _Core:
    """Return the (R, R) core for R = sum r_k; the largest tensors are the two stacks, (out, R) and (in, R)."""
    ranks = [site.rank for site in sites]
    r1, left = implicit_qr(torch.cat([w * site.b for site, w in zip(sites, weights, strict=True)], dim=1))
    r2, right = implicit_qr(torch.cat([site.a for site in sites]).mT)
    mean = None
    if len(set(ranks)) == 1:
        # The blocks of R1 carry their weights already, those of R2 do not.
        mean_a = cast(Tensor, sum(w * block for block, w in zip(r2.split(ranks, dim=1), weights, strict=True)))
        mean = cast(Tensor, sum(r1.split(ranks, dim=1))) @ mean_a.mT
    return _Core(r1 @ r2.mT, mean, left, right)


def _core_dense(sites: Sequence[Factors], weights: Sequence[float]) -> _Core:
    """Return the average itself as the core, summed site by site: no tensor grows with the number of sites."""
    dense = sites[0].b.new_zeros(sites[0].shape)
    for site, w in zip(sites, weights, strict=True):
        dense.addmm_(site.b, site.a, alpha=w)
    mean = None
    if len({site.rank for site in sites}) == 1:
        mean_b = cast(Tensor, sum(w * site.b for site, w in zip(sites, weights, strict=True)))
        mean_a = cast(Tensor, sum(w * site.a for site, w in zip(sites, weights, strict=True)))
        mean = mean_b @ mean_a
    return _Core(dense, mean, lambda x: x, lambda x: x)


def implicit_qr(stack: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return R of the reduced QR of `stack` (n, R), n >= R, and the function x (R, q) -> Q x (n, q).

    Q stays a product of reflections: to apply it to q columns takes half the time of forming its R columns.
    """
    reflectors, tau = torch.geqrf(stack)
    n, width = stack.shape

    def apply(x: Tensor) -> Tensor:
        return torch.ormqr(reflectors, tau, torch.cat([x, x.new_zeros(n - width, x.shape[1])]))

    return reflectors[:width].triu(), apply


def _aligned(found: Factors, last: Factors) -> Factors:
    """Rotate `found` (rank q, float64) towards `last` (rank r >= q), with the product of `found`."""
    if found.rank == 0:
        return Factors(torch.zeros_like(last.b), last.a.clone())
    before = last.double()
    turn = procrustes(torch.cat([found.b, found.a.mT]), torch.cat([before.b, before.a.mT]))  # W^T (q, r)
    a = turn.mT @ found.a
    if found.rank < last.rank:
        a = a + before.a - turn.mT @ (turn @ before.a)
    return Factors((found.b @ turn).to(last.b.dtype), a.to(last.a.dtype))


def _report(core: _Core, sigma: Tensor, q: int) -> ProductReport:
    """Measure what keeping the first `q` of the descending singular values loses."""
    if q == 0:
        return ProductReport(1.0, 0.0, None)
    norm = sigma.norm()
    error = None if core.factor_mean is None else float((core.matrix - core.factor_mean).norm() / norm)
    return ProductReport(float((sigma[:q].norm() / norm) ** 2), float(sigma[q:].norm() / norm), error)

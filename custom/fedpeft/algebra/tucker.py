"""The average of adapters whose layers share their bases: FacT, which MA-SAM uses.

FacT (Jie and Deng, AAAI 2023) writes the updates of L slots (q and v of every block) as dW_l = V S_l U, with V (out, r)
and U (r, in) common to all slots: FacT-TT. FacT-TK also shares the S_l, S_l = sum_k C[:, :, k] P[k, l]. Both are Tucker
forms: the tensor W (L, out, in) of all slots is a core multiplied by a basis in two or three of its modes. The FLAP-SAM
paper calls a federated MA-SAM infeasible. It is feasible: the average of such tensors lies in the span of all sites'
bases, where it is small, and its best approximation of the original shape is a classical problem (`hooi`). The bases
are then chosen within their spans so that the tensors stay near the sites' mean (`gauge`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum, hypot, isfinite, prod, sqrt
from typing import cast

import torch
from torch import Tensor

from fedpeft.algebra.gauge import gauges
from fedpeft.algebra.hooi import Bases, best_bases, leading, lost, multiply, project
from fedpeft.algebra.lowrank import NOISE, check_weights, implicit_qr

# More rounding of the result than this calls for another gauge, in eps of its dtype: 8e-6 for float32; 1 is usual.
ROUNDING = 64


@dataclass(frozen=True, eq=False)
class Tucker:
    """A tensor (L, out, in): `core` multiplied in every mode m of `bases` by bases[m].

    Attributes:
        core: S (L, r, r) of FacT-TT, or C of FacT-TK with its last dimension in front, (r', r, r).
        bases: mode -> (size, width of the core there): 1: V (out, r), 2: U^T (in, r) and in FacT-TK 0: P^T (L, r').

    Raises:
        ValueError: if the shapes do not fit.
    """

    core: Tensor
    bases: Bases

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit."""
        if self.core.ndim != 3 or any(x.ndim != 2 or x.shape[1] != self.core.shape[m] for m, x in self.bases.items()):
            raise ValueError(f"a core of three modes and bases (size, width of their mode) expected, got {self.shapes}")

    @property
    def parts(self) -> list[Tensor]:
        """The bases, then the core."""
        return [*self.bases.values(), self.core]

    @property
    def shapes(self) -> str:
        """The shapes in words, for messages."""
        bases = "".join(f", basis of mode {mode} {tuple(basis.shape)}" for mode, basis in self.bases.items())
        return f"core {tuple(self.core.shape)}{bases}"

    def like(self, parts: Sequence[Tensor]) -> "Tucker":
        """Return the form that has these tensors as its `parts`."""
        return Tucker(parts[-1], dict(zip(self.bases, parts[:-1], strict=True)))


@dataclass(frozen=True)
class TuckerReport:
    """What averaging one adapter lost; errors are Frobenius norms over all slots, relative to the average's.

    Attributes:
        energy_kept: share of the average's squared norm that the shape keeps, 0 to 1; 1 if the average is zero.
        truncation_error: error of the result before it is rounded, 0 to 1; 0 if the average is zero.
        factor_mean_error: error that the mean of the factors would have made; None if the average is zero.
        best_site_error: error that the best core within one site's bases would have made, for the best of all sites;
            None if the average is zero.
        rounding_error: upper bound of what rounding to the dtypes of the result adds; None if the average is zero.
        sweeps: number of HOOI sweeps, from one start or two.
    """

    energy_kept: float
    truncation_error: float
    factor_mean_error: float | None
    best_site_error: float | None
    rounding_error: float | None
    sweeps: int


@dataclass(frozen=True, eq=False)
class _Problem:
    """The average, the sites and their mean in coordinates in which they are small.

    Attributes:
        total: the average.
        sites: the sites of weight > 0.
        mean: the mean of the sites' parts.
        lifts: mode -> the isometry that takes (p, r) back to (n, r).
        sizes: for each of the parts, the root mean square over the sites of its norm.
        noise: the norm that rounding may leave of sites that cancel.
    """

    total: Tensor
    sites: list[Tucker]
    mean: Tucker
    lifts: dict[int, Callable[[Tensor], Tensor]]
    sizes: list[float]
    noise: float


@torch.no_grad()
def average_tucker(sites: Sequence[Tucker], weights: Sequence[float], last: Tucker) -> tuple[Tucker, TuckerReport]:
    """Return the best form of the shapes of `last` for sum_k w_k W_k, near the mean of the sites' tensors.

    With the QR of [V_1 .. V_K] = Q_V R_V and [U_1^T .. U_K^T] = Q_U R_U the average is Q_V G_l Q_U^T, where
    G_l = sum_k w_k R_V,k S_kl R_U,k^T is (K r, K r); a dimension of at most K r is not compressed. The same holds for
    P_k^T. HOOI finds the bases of G, and they lose no more than those of any site or of the mean.

    With p = min(K r, out) and s = min(K r, in) the cost is that of G, 2 K L p r (r + s) operations, twice as much to
    compare with the sites, a QR of (L s, p) and of (L p, s) to start with, and in each sweep 4 L p s r operations and
    a QR of (L r, p) and of (L r, s). No tensor has out * in elements a slot while K r is below both.

    Args:
        sites: K >= 1 forms of the shapes of `last`.
        weights: K numbers >= 0 that sum to 1; a site of weight 0 has no influence.
        last: what the sites received; gives the shapes and dtypes of the result.

    Returns:
        The form, and what it lost. If the average is zero (below float64 noise of the terms), one part is zero and all
        others are the mean of the sites', see `_zero`.

    Raises:
        ValueError: if shapes or weights do not fit, a value is not finite, or the result overflows its dtype.
    """
    check_weights(weights, len(sites))
    _check(sites, last)
    exact = [site.like([x.double() for x in site.parts]) for site, w in zip(sites, weights, strict=True) if w > 0]
    counted = [w for w in weights if w > 0]
    problem = _compressed(exact, counted)
    norm, mean = float(problem.total.norm()), problem.mean
    if not isfinite(norm + problem.noise):
        raise ValueError("the sum of the sites' products overflows float64: leave out the site with the largest values")
    if norm <= problem.noise:
        return _zero(_mean(exact, counted), problem.sizes, last), TuckerReport(1.0, 0.0, None, None, None, 0)
    spans = [{mode: _span(basis) for mode, basis in form.bases.items()} for form in [*problem.sites, mean]]
    bases, errors, sweeps = best_bases(problem.total, {mode: mean.core.shape[mode] for mode in mean.bases}, spans)
    bases, core = _trimmed(problem.total, bases, problem.noise)
    result, rounding = _settled(core, bases, problem, last)
    kept, error = float(core.norm()), lost(problem.total, bases)
    return result, TuckerReport(
        energy_kept=(kept / hypot(kept, error)) ** 2,
        truncation_error=error / hypot(kept, error),
        factor_mean_error=float((problem.total - multiply(mean.core, mean.bases)).norm()) / norm,
        best_site_error=min(errors[:-1]) / norm,
        rounding_error=rounding / norm,
        sweeps=sweeps,
    )


def _check(sites: Sequence[Tucker], last: Tucker) -> None:
    """Raise ValueError unless all forms have the shapes of `last` and all values are finite."""
    for name, form in [*((f"site {k}", site) for k, site in enumerate(sites)), ("the last round", last)]:
        if form.shapes != last.shapes:
            raise ValueError(f"{name} has {form.shapes}; the last round has {last.shapes}")
        if not all(x.isfinite().all() for x in form.parts):
            raise ValueError(
                f"the tensors of {name} hold NaN or infinity: leave this site out or lower its learning rate"
            )


def _mean(forms: Sequence[Tucker], weights: Sequence[float]) -> Tucker:
    """Return the weighted mean of all parts."""
    columns = zip(*(form.parts for form in forms), strict=True)
    return forms[0].like([sum(w * x for w, x in zip(weights, column, strict=True)) for column in columns])


def _compressed(sites: Sequence[Tucker], weights: Sequence[float]) -> _Problem:
    """Return the problem for sites in float64; the weights go into the sum."""
    blocks, lifts = {}, {}
    for mode, basis in sites[0].bases.items():
        stack = torch.cat([site.bases[mode] for site in sites], dim=1)
        small, lifts[mode] = implicit_qr(stack) if len(stack) > stack.shape[1] else (stack, lambda x: x)
        blocks[mode] = small.split(basis.shape[1], dim=1)
    local = [Tucker(site.core, {mode: of[k] for mode, of in blocks.items()}) for k, site in enumerate(sites)]
    total = cast(Tensor, sum(w * multiply(form.core, form.bases) for w, form in zip(weights, local, strict=True)))
    norms = [[float(x.norm()) for x in site.parts] for site in sites]
    sizes = [sqrt(fsum(w * x**2 for w, x in zip(weights, part, strict=True))) for part in zip(*norms, strict=True)]
    noise = NOISE * fsum(w * prod(of_site) for w, of_site in zip(weights, norms, strict=True))
    return _Problem(total.contiguous(), local, _mean(local, weights), lifts, sizes, noise)


def _zero(mean: Tucker, sizes: Sequence[float], last: Tucker) -> Tucker:
    """Return a form whose product is zero and which can learn.

    The part whose mean is nearest to zero becomes zero: at the start, that is V. The others are the mean and give it a
    gradient; where sites cancel so that another mean vanishes as well, the last round's tensor takes its place.
    """
    ratios = [float(x.norm()) / size if size else 0.0 for x, size in zip(mean.parts, sizes, strict=True)]
    parts = [x if ratio > NOISE else y for x, y, ratio in zip(mean.parts, last.parts, ratios, strict=True)]
    least = ratios.index(min(ratios))
    parts[least] = torch.zeros_like(parts[least])
    return last.like([x.to(y.dtype) for x, y in zip(parts, last.parts, strict=True)])


def _span(basis: Tensor) -> Tensor:
    """Return orthonormal columns for the span of `basis`, as many as it has dimensions."""
    u, sigma, _ = torch.linalg.svd(basis, full_matrices=False)
    return u[:, : int((sigma > NOISE * sigma[0]).sum())]


def _trimmed(total: Tensor, bases: Bases, noise: float) -> tuple[Bases, Tensor]:
    """Return the bases without directions in which the average is noise, but at least one each, and their core."""
    core, turns = project(total, bases), {}
    for mode, basis in bases.items():
        u, sigma = leading(core, mode, basis.shape[1])
        turns[mode] = u[:, : max(1, int((sigma > noise).sum()))]
    return {mode: basis @ turns[mode] for mode, basis in bases.items()}, project(core, turns)


def _settled(core: Tensor, bases: Bases, problem: _Problem, last: Tucker) -> tuple[Tucker, float]:
    """Return the form in full size and the dtypes of `last`, and an upper bound of the change by rounding.

    It has the gauge nearest to the mean whose rounding is harmless or, if there is none, the one that rounds least.
    """
    mean, best, least = problem.mean, None, float("inf")
    harmless = ROUNDING * max(torch.finfo(x.dtype).eps for x in last.parts) * float(core.norm())
    for turned, near in gauges(core, bases, mean.core, mean.bases, problem.sizes, problem.noise):
        exact = last.like([*(problem.lifts[mode](basis) for mode, basis in near.items()), turned])
        result = last.like([x.to(y.dtype).contiguous() for x, y in zip(exact.parts, last.parts, strict=True)])
        change = _change(exact, result)
        if change < least:
            best, least = result, change
        if change <= harmless:
            break
    if best is None or not isfinite(least):
        raise ValueError(f"the average overflows {last.core.dtype}: lower the learning rate of the sites")
    return best, least


def _change(exact: Tucker, result: Tucker) -> float:
    """Return an upper bound of the distance between the two products, both of the same shapes.

    Their difference is a sum over the parts: in each term one part is the difference, the parts before it are new and
    those after it old. Norms come from the R factors of the bases.
    """
    old, new = exact.parts, [x.double() for x in result.parts]
    change = 0.0
    for i in range(len(old)):
        term = exact.like([*new[:i], new[i] - old[i], *old[i + 1 :]])
        triangles = {mode: torch.linalg.qr(basis, mode="r").R for mode, basis in term.bases.items()}
        change += float(multiply(term.core, triangles).norm())
    return change

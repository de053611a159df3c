"""Choose among the equal factorisations of a Tucker form one that is close to the sites' mean.

V S_l U = (V M)(M^-1 S_l N^-1)(N U) for all invertible M and N: the average fixes the product and the spans of the
bases, not the bases. Optimiser moments that sites keep refer to the tensors that they sent, so the closer the result is
to the mean of those, the longer the moments stay valid; and where all sites agree, nothing should move at all.
"""

from collections.abc import Iterator, Sequence
from math import hypot, sqrt

import torch
from torch import Tensor

from fedpeft.algebra.hooi import Bases, multiply, project

# Lower bounds of the singular values of a gauge, relative to the root mean square of those of the sites' bases. At 1
# all are equal, which magnifies no rounding; the last changes no matrix that float64 can invert.
BOUNDS = [10.0**-power for power in range(13)]
# Shares of the mean core that are tried in directions that the product leaves unused.
SHARES = [10.0**-power for power in range(7)]


def gauges(
    core: Tensor, bases: Bases, mean_core: Tensor, mean_bases: Bases, sizes: Sequence[float], noise: float
) -> Iterator[tuple[Tensor, Bases]]:
    """Yield cores and bases with the product of `core` and `bases`, ordered by their distance from the mean.

    The mean basis V has the projection V_q M on the span of V_q, M = V_q^T V = A diag(m) B^T. The core that belongs to
    V_q M is S + M^+ (core - M S N) N^+, where N is the M of the other basis: the mean core S, changed only where the
    product requires it. In directions that the product leaves unused (q < r) the bases are zero and S stays, so that
    the bases still receive a gradient.

    Where m is small the core has large entries: it moves far and magnifies rounding. So m is raised to a lower bound,
    each of BOUNDS in turn. A large S in unused directions magnifies the rounding of the zeros there, so it is scaled by
    each of SHARES. The distance is the root of the summed squares of the changes of bases and core, each relative to
    its size.

    Args:
        core: the best core for `bases`.
        bases: mode -> (n_m, q_m) with orthonormal columns, q_m <= r_m.
        mean_core: the mean of the sites' cores.
        mean_bases: mode -> (n_m, r_m), the means of the sites' bases.
        sizes: for every mode of `bases` in its order, then for the core: the root mean square of the sites' norms.
        noise: norm of core - M S N below which the mean core is kept bit for bit.

    Yields:
        A core of the shape of `mean_core` and bases of the shapes of `mean_bases`.
    """
    svds = {mode: torch.linalg.svd(basis.mT @ mean_bases[mode], full_matrices=False) for mode, basis in bases.items()}
    wanted = project(core, {mode: svd.U for mode, svd in svds.items()})
    given = multiply(mean_core, {mode: svd.Vh for mode, svd in svds.items()})
    back = {mode: svd.Vh.mT for mode, svd in svds.items()}
    unused = mean_core - multiply(given, back)
    shares = SHARES if any(basis.shape[1] < mean_bases[mode].shape[1] for mode, basis in bases.items()) else SHARES[:1]
    tries = []
    for bound in reversed(BOUNDS):
        widths, scale, moves = {}, torch.ones_like(wanted), []
        for (mode, svd), size in zip(svds.items(), sizes, strict=False):
            widths[mode] = svd.S.clamp(min=bound * size / sqrt(mean_core.shape[mode]))
            scale = scale * widths[mode].reshape([-1 if mode == axis else 1 for axis in range(scale.ndim)])
            moves.append(float((widths[mode] - svd.S).norm()) / size)
        lack = wanted - scale * given
        step = lack / scale if float(lack.norm()) > noise else torch.zeros_like(lack)
        moves.append(float(step.norm()) / sizes[-1])
        for share in shares:
            tries.append((hypot(*moves, (1 - share) * float(unused.norm()) / sizes[-1]), widths, step, share))
    for _, widths, step, share in sorted(tries, key=lambda item: item[0]):
        yield (
            mean_core + multiply(step, back) - (1 - share) * unused,
            {mode: basis @ (svds[mode].U * widths[mode]) @ svds[mode].Vh for mode, basis in bases.items()},
        )

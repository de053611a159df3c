"""The best Tucker approximation of a dense tensor: start with HOSVD, then improve by sweeps of HOOI.

A tensor X (n_0, n_1, n_2) is approximated in some of its modes m by X x_m Q_m Q_m^T, the Q_m (n_m, r_m) with
orthonormal columns; for given bases the core X x_m Q_m^T is the best. There is no closed form for the best bases: a
sweep takes mode after mode and gives it the leading singular vectors of what the other bases keep (De Lathauwer, De
Moor and Vandewalle, SIAM J. Matrix Anal. Appl. 21, 2000). No sweep makes the fit worse, and the start decides which
optimum is reached. Bases are dictionaries mode -> matrix; a mode that is missing is not compressed.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Bases = dict[int, Tensor]

# Independent sites are the hardest and take 15 to 130 sweeps; sites that trained from one start take 2.
SWEEPS = 200
CONVERGED = 1e-12


def multiply(core: Tensor, matrices: Mapping[int, Tensor]) -> Tensor:
    """Return core x_m matrices[m] for every m given: mode m of size r becomes n by a matrix (n, r)."""
    for mode, matrix in matrices.items():
        core = core @ matrix.mT if mode == core.ndim - 1 else (core.movedim(mode, -1) @ matrix.mT).movedim(-1, mode)
    return core


def project(tensor: Tensor, bases: Bases) -> Tensor:
    """Return the core X x_m Q_m^T."""
    return multiply(tensor, {mode: basis.mT for mode, basis in bases.items()})


def lost(tensor: Tensor, bases: Bases) -> float:
    """Return ||X - X x_m Q_m Q_m^T|| from the difference: ||X||^2 - ||core||^2 is noise for errors below 1e-8 ||X||."""
    return float((tensor - multiply(project(tensor, bases), bases)).norm())


def leading(tensor: Tensor, mode: int, rank: int) -> tuple[Tensor, Tensor]:
    """Return the first left singular vectors of an unfolding, and all its singular values.

    The right vectors are not needed, so the R factor of its transpose replaces a wide unfolding. A Gram matrix would be
    cheaper still, but lose singular values below 1e-8 of the largest.

    Returns:
        (n_mode, q) with q = `rank` or, if that is less, the smaller dimension of the unfolding; sigma, descending.
    """
    matrix = tensor.movedim(mode, 0).flatten(1)
    if matrix.shape[1] > matrix.shape[0]:
        matrix = torch.linalg.qr(matrix.mT, mode="r").R.mT
    u, sigma, _ = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], sigma


def sweep(tensor: Tensor, ranks: Mapping[int, int], start: Bases) -> tuple[Bases, int]:
    """Improve `start` by HOOI until a sweep adds less than 1e-12 of the kept energy, or 200 are made.

    Args:
        tensor: X, float64.
        ranks: r_m of every mode that has a basis, in the order in which they are improved.
        start: (n_m, any width) with orthonormal columns; that of the first mode is not used.

    Returns:
        The bases, (n_m, q_m <= r_m), and the number of sweeps.
    """
    bases, before, kept, count = dict(start), -1.0, 0.0, 0
    while kept - before > CONVERGED * kept and count < SWEEPS:
        before, count = kept, count + 1
        for mode, rank in ranks.items():
            rest = project(tensor, {other: basis for other, basis in bases.items() if other != mode})
            bases[mode], sigma = leading(rest, mode, rank)
        kept = float(sigma[:rank].square().sum())
    return bases, count


def best_bases(tensor: Tensor, ranks: Mapping[int, int], others: Sequence[Bases]) -> tuple[Bases, list[float], int]:
    """Return bases that lose no more than any of `others`.

    HOOI starts from the leading singular vectors of every unfolding (HOSVD), which are within sqrt(modes) of the best
    error. If its result is worse than the best of `others` by more than rounding, it also starts from those, and the
    better result counts.

    Returns:
        The bases, the absolute error of each of `others`, and the sweeps made from both starts.
    """
    found, count = sweep(tensor, ranks, {mode: leading(tensor, mode, rank)[0] for mode, rank in ranks.items()})
    errors = [lost(tensor, bases) for bases in others]
    least, error = min(errors), lost(tensor, found)
    if least < error - CONVERGED * float(tensor.norm()):
        again, more = sweep(tensor, ranks, others[errors.index(least)])
        found, count = again if lost(tensor, again) < error else found, count + more
    return found, errors, count

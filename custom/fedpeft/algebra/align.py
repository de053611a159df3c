"""Rotations between the bases of low-rank factors.

B A = (B R)(R^T A) for every orthogonal R: a decomposition fixes the product and leaves the basis open. Sites keep
optimiser moments that refer to the basis of the last round, so the server returns the average in the basis closest to
that one, and a site may rotate its moments along. Everything here is small: no matrix exceeds (out + in) x r.
"""

import torch
from torch import Tensor

from fedpeft.algebra.finite import all_finite


def procrustes(source: Tensor, target: Tensor) -> Tensor:
    """Return the rotation R that minimises ||source R - target||_F (orthogonal Procrustes; Schoenemann, 1966).

    R = U V^T with source^T target = U S V^T. For q < r, R has orthonormal rows and is still the minimiser.

    Args:
        source: (n, q), finite.
        target: (n, r) with r >= q, finite.

    Returns:
        R: (q, r) with R R^T = I, computed in float64 and returned in the dtype of `source`. It is unique
        when source^T target has rank q.

    Raises:
        ValueError: if the shapes do not fit or a value is not finite.
    """
    if source.ndim != 2 or target.ndim != 2 or source.shape[0] != target.shape[0] or source.shape[1] > target.shape[1]:
        raise ValueError(
            f"procrustes expects source (n, q) and target (n, r) with q <= r, "
            f"got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    overlap = source.double().mT @ target.double()
    if not all_finite(overlap):
        raise ValueError("procrustes got values that are not finite: check the factors for NaN, infinity or overflow")
    u, _, vh = torch.linalg.svd(overlap, full_matrices=False)
    return (u @ vh).to(source.dtype)


def rotate_moments(exp_avg: Tensor, exp_avg_sq: Tensor, rotation: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Carry Adam's moments of a factor into the basis of B R and R^T A.

    The gradient of A turns into R^T g (dim 0), that of B into g R (dim 1), and so does the first moment, exactly. The
    second moment keeps only the diagonal of E[g g^T], so v_j = sum_i R_ij^2 v_i is an approximation that drops the
    correlations between ranks; it keeps every entry non-negative and their sum unchanged.

    Args:
        exp_avg: first moment, (r, in) for A or (out, r) for B.
        exp_avg_sq: second moment of the same shape, >= 0.
        rotation: orthogonal R (r, r), as `procrustes(last, received)` gives it.
        dim: the dimension of the rank: 0 for A, 1 for B.

    Returns:
        Both moments rotated, in their own dtype; the arguments are not changed.

    Raises:
        ValueError: if `dim` is neither 0 nor 1 or the shapes do not fit.
    """
    if dim not in (0, 1):
        raise ValueError(f"the rank of a factor is dim 0 (A) or dim 1 (B), got dim {dim}")
    if exp_avg.ndim != 2 or exp_avg.shape != exp_avg_sq.shape or rotation.shape != (exp_avg.shape[dim],) * 2:
        raise ValueError(
            f"moments of one 2-D shape and a square rotation for dim {dim} expected, got "
            f"{tuple(exp_avg.shape)}, {tuple(exp_avg_sq.shape)} and {tuple(rotation.shape)}"
        )
    first = rotation.to(exp_avg)
    second = rotation.to(exp_avg_sq).square()
    if dim == 0:
        return first.mT @ exp_avg, second.mT @ exp_avg_sq
    return exp_avg @ first, exp_avg_sq @ second

"""Rotations and optimiser moments."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedpeft.algebra.align import procrustes, rotate_moments


def normal(seed: int, *shape: int) -> Tensor:
    """Return seeded normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(seed: int, r: int) -> Tensor:
    """Return a random orthogonal matrix."""
    return torch.linalg.qr(normal(seed, r, r))[0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(r=st.integers(1, 8), extra=st.integers(0, 10), seed=st.integers(0, 10_000))
def test_procrustes_recovers_a_rotation(r: int, extra: int, seed: int) -> None:
    """A target that is a rotation of the source is reached, whatever the rank."""
    source, turn = normal(seed, r + extra + 1, r), orthogonal(seed + 1, r)
    assert torch.allclose(source @ procrustes(source, source @ turn), source @ turn, atol=1e-9)


@pytest.mark.parametrize(("q", "r"), [(4, 4), (2, 5)])
def test_procrustes_beats_every_other_rotation(q: int, r: int) -> None:
    """Rows are orthonormal, and no perturbed rotation comes closer, square or not."""
    source, target = normal(1, 20, q), normal(2, 20, r)
    found = procrustes(source, target)
    best = (source @ found - target).norm()
    assert torch.allclose(found @ found.mT, torch.eye(q, dtype=torch.float64), atol=1e-12)
    for seed in range(50):
        nearby = torch.linalg.qr((found + 0.1 * normal(seed, q, r)).mT)
        other = (nearby.Q * nearby.R.diagonal().sign()).mT
        assert (source @ other - target).norm() > best


def test_procrustes_refuses_what_does_not_fit() -> None:
    """Errors name the shapes or say what to check."""
    for source, target in [(normal(1, 4, 3), normal(1, 4, 2)), (normal(1, 4, 2), normal(1, 5, 2)), (normal(1, 4),) * 2]:
        with pytest.raises(ValueError, match="q <= r"):
            procrustes(source, target)
    with pytest.raises(ValueError, match="not finite"):
        procrustes(normal(1, 4, 2) / 0, normal(1, 4, 2))


def test_gradients_turn_as_the_first_moment_does() -> None:
    """Autograd in the rotated basis agrees with the rotated gradient, for A and for B."""
    b, a, turn, data = normal(1, 7, 3), normal(2, 3, 5), orthogonal(3, 3), normal(4, 7, 5)

    def gradients(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        b, a = b.clone().requires_grad_(), a.clone().requires_grad_()
        (b @ a - data).square().sum().backward()
        return b.grad, a.grad

    grad_b, grad_a = gradients(b, a)
    turned_b, turned_a = gradients(b @ turn, turn.mT @ a)
    assert torch.allclose(rotate_moments(grad_b, grad_b**2, turn, 1)[0], turned_b)
    assert torch.allclose(rotate_moments(grad_a, grad_a**2, turn, 0)[0], turned_a)


@pytest.mark.parametrize(("dim", "shape"), [(0, (4, 9)), (1, (9, 4))])
def test_second_moments_are_the_diagonal_of_the_rotated_covariance(dim: int, shape: tuple[int, int]) -> None:
    """The second moment becomes diag(R^T diag(v) R): non-negative, with the same sum."""
    v, turn = normal(5, *shape).square(), orthogonal(6, 4)
    _, rotated = rotate_moments(normal(7, *shape), v, turn, dim)
    rows, turned = (v.mT, rotated.mT) if dim == 0 else (v, rotated)
    for before, after in zip(rows, turned, strict=True):
        assert torch.allclose(after, (turn.mT @ torch.diag(before) @ turn).diagonal())
    assert float(rotated.min()) >= 0 and torch.allclose(rotated.sum(dim), v.sum(dim))


@pytest.mark.parametrize("dim", [0, 1])
def test_permutations_and_signs_move_moments_exactly_and_dtypes_stay(dim: int) -> None:
    """The rotations an SVD makes most often lose nothing."""
    m, v = normal(8, 3, 3).float(), normal(9, 3, 3).square().float()
    order, signs = [2, 0, 1], torch.tensor([1.0, -1.0, -1.0])
    turn = torch.eye(3, dtype=torch.float64)[:, order] * signs
    first, second = rotate_moments(m, v, turn, dim)
    assert first.dtype == second.dtype == torch.float32
    assert torch.equal(second, v.index_select(dim, torch.tensor(order)))
    assert torch.equal(first, m.index_select(dim, torch.tensor(order)) * (signs[:, None] if dim == 0 else signs))


def test_rotate_moments_refuses_what_does_not_fit() -> None:
    """Errors name the dimension or the shapes."""
    m, turn = normal(1, 3, 5), orthogonal(2, 3)
    with pytest.raises(ValueError, match="dim 2"):
        rotate_moments(m, m, turn, 2)
    for moments in [(m, m.mT), (m.mT, m.mT)]:
        with pytest.raises(ValueError, match="square rotation"):
            rotate_moments(*moments, turn, 0)

"""Tucker decompositions: products and unfoldings against einsum, monotony, starts."""

import pytest
import torch
from torch import Tensor

from fedpeft.algebra import hooi
from fedpeft.algebra.hooi import best_bases, leading, lost, multiply, project, sweep

RANKS = {1: 2, 2: 2}


def normal(seed: int, *shape: int) -> Tensor:
    """Return seeded normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bases(seed: int, *sizes: int) -> dict[int, Tensor]:
    """Return random bases of two columns for the modes 1, 2 and so on."""
    return {mode: torch.linalg.qr(normal(seed + mode, size, 2)).Q for mode, size in enumerate(sizes, 1)}


def test_products_are_those_of_einsum() -> None:
    """Every mode, alone and together, on strided tensors as well."""
    core, matrices = normal(1, 4, 5, 3).permute(0, 2, 1), {m: normal(m, 6 + m, n) for m, n in enumerate((4, 3, 5))}
    together = torch.einsum("abc,ia,jb,kc->ijk", core, *matrices.values())
    assert torch.allclose(multiply(core, matrices), together, rtol=1e-12)
    assert torch.allclose(multiply(core, {1: matrices[1]}), torch.einsum("abc,jb->ajc", core, matrices[1]), rtol=1e-12)
    assert torch.allclose(project(together, {0: matrices[0]}), multiply(together, {0: matrices[0].mT}))


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 30, 3), (1, 4, 4)])
def test_leading_vectors_are_those_of_the_unfolding(shape: tuple[int, int, int]) -> None:
    """Wide or tall: orthonormal, ordered, with the singular values of the full SVD."""
    tensor = normal(2, *shape)
    for mode, side in enumerate(shape):
        matrix = tensor.movedim(mode, 0).reshape(side, -1)
        full = torch.linalg.svd(matrix, full_matrices=False)
        u, sigma = leading(tensor, mode, 2)
        assert torch.allclose(sigma, full.S) and u.shape == (side, min(2, *matrix.shape))
        assert torch.allclose((u.mT @ matrix).norm(dim=1), full.S[:2])
        assert torch.allclose(u.mT @ u, torch.eye(u.shape[1], dtype=torch.float64), atol=1e-12)


def test_small_errors_are_not_lost_in_cancellation() -> None:
    """An error of 1e-13 is measured as such."""
    start = bases(3, 20, 20)
    exact = multiply(normal(4, 3, 2, 2), start)
    noise = normal(5, 3, 20, 20)
    noise = 1e-13 * noise / noise.norm() * exact.norm()
    expected = noise - multiply(project(noise, start), start)
    assert lost(exact + noise, start) == pytest.approx(float(expected.norm()), rel=0.05)


def test_no_sweep_loses_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors descend from sweep to sweep, and the end is a fixed point."""
    tensor, start = normal(6, 5, 8, 8), bases(7, 8, 8)
    errors = [lost(tensor, start)]
    for limit in (1, 2, 4, 8, 200):
        monkeypatch.setattr(hooi, "SWEEPS", limit)
        found, count = sweep(tensor, RANKS, start)
        errors.append(lost(tensor, found))
        assert count <= limit
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]
    again, count = sweep(tensor, RANKS, found)
    assert count <= 3 and lost(tensor, again) == pytest.approx(errors[-1], rel=1e-9)


@pytest.mark.parametrize("seed", [0, 2, 10, 48])
def test_a_better_start_is_taken(seed: int) -> None:
    """Noise has several optima: where another one than HOSVD's is on offer, the result is no worse."""
    tensor = normal(seed, 5, 8, 8)
    starts = [bases(100 * seed + k, 8, 8) for k in range(0, 60, 3)]
    ends = [sweep(tensor, RANKS, start)[0] for start in starts]
    best = min(ends, key=lambda end: lost(tensor, end))
    alone, errors, count = best_bases(tensor, RANKS, starts)
    assert errors == [lost(tensor, start) for start in starts] and lost(tensor, alone) < min(errors)
    found, errors, more = best_bases(tensor, RANKS, [*starts, best])
    assert lost(tensor, best) < 0.9995 * lost(tensor, alone)
    assert lost(tensor, found) <= errors[-1] + 1e-9 and more > count


def test_equal_starts_are_no_reason_to_sweep_twice() -> None:
    """Where HOSVD is as good as the others, only its sweeps are made."""
    tensor = multiply(normal(8, 3, 2, 2), bases(9, 20, 20)) + 1e-3 * normal(10, 3, 20, 20)
    _, errors, count = best_bases(tensor, RANKS, [bases(9, 20, 20)])
    assert count <= 4 and errors[0] / float(tensor.norm()) < 0.1

"""Sites of every kind, dense algebra to compare with, and a witness of the largest tensor."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fedpeft.algebra.lowrank import Factors
from fedpeft.algebra.tucker import Tucker


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


def forms(seed: int, count: int, out: int, inn: int, rank: int, slots: int, third: int | None = None) -> list[Tucker]:
    """Return independent random forms: FacT-TT, or FacT-TK with `third` as the width of P."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    def one() -> Tucker:
        bases = {1: normal(out, rank), 2: normal(inn, rank)}
        if third is None:
            return Tucker(normal(slots, rank, rank), bases)
        return Tucker(normal(third, rank, rank), bases | {0: normal(slots, third)})

    return [one() for _ in range(count)]


def near(base: Tucker, noise: list[Tucker], drift: float) -> list[Tucker]:
    """Return `base` with each of the perturbations, relative to the size of every part."""
    return [
        base.like([x + drift * y * x.norm() / y.norm() for x, y in zip(base.parts, form.parts, strict=True)])
        for form in noise
    ]


def scaled(form: Tucker, part: int, factor: float) -> Tucker:
    """Return `form` with one of its parts multiplied; -1 is the core."""
    parts = list(form.parts)
    parts[part] = factor * parts[part]
    return form.like(parts)


def regauged(form: Tucker, seed: int, digits: float = 0.0) -> Tucker:
    """Return the same product in other bases, by matrices of condition number 10^digits."""
    g = torch.Generator().manual_seed(seed)
    turns = {}
    for mode, basis in form.bases.items():
        shape = (2, basis.shape[1], basis.shape[1])
        one, other = torch.linalg.qr(torch.randn(shape, generator=g, dtype=torch.float64)).Q
        turns[mode] = (one * torch.logspace(0, -digits, shape[1], dtype=torch.float64)) @ other
    core = form.core
    for mode, turn in turns.items():
        core = torch.einsum("ij,j...->i...", torch.linalg.inv(turn), core.movedim(mode, 0)).movedim(0, mode)
    return Tucker(core, {mode: basis @ turns[mode] for mode, basis in form.bases.items()})


def single(form: Tucker) -> Tucker:
    """Return the form in float32."""
    return form.like([x.float() for x in form.parts])


def dense(form: Tucker) -> Tensor:
    """Return the tensor (L, out, in) in float64."""
    core = form.core.double()
    if 0 in form.bases:
        core = torch.einsum("lk,kij->lij", form.bases[0].double(), core)
    return form.bases[1].double() @ core @ form.bases[2].double().mT


def dense_average(sites: list[Tucker], weights: list[float]) -> Tensor:
    """Return the average tensor, term by term."""
    return sum(w * dense(site) for site, w in zip(sites, weights, strict=True))

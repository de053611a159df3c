"""Averaging one round's low-rank factors: ours beside what others publish for the same task.

    python tests/benchmarks/bench_rivals.py [--json FILE] [--repeats 7] [--threads 2]

Six sites with the weights of FLAP-SAM's code for Fed-KiTS, rank 32, LoRA on q and v of every attention of SAM ViT-B:
38 pairs in float32. The ways:

- ours: what the server calls, ``average_payload``: checks, products in float64, alignment to the last round, report;
- HLoRA: FLARE's own aggregator for low-rank factors (its medgemma example), written anew from its definition: with
  L = [sqrt(w_k) B_k] = Q1 R1 and the stacked sqrt(w_k) A_k, transposed, = Q2 R2, the SVD of R1 R2^T gives
  B = Q1 U_r, A = S_r V_r^T Q2^T; sites may have other ranks than the result; float32;
- dense, randomised: what FLAP-SAM's code does, sum of w_k B_k A_k and a randomised SVD (Halko, Martinsson and Tropp
  2011) with the iterations of scikit-learn's, written anew in torch, so that all ways have the same threads;
- dense, full: the same sum and a full SVD, which its paper describes.

They take turns within each repeat. Memory is that of a fresh process for each. Distances are to the best product of
rank 32, computed densely in float64. Nothing is asserted: the table is the result.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "custom"))
from bench_aggregation import RANK, SHAPES, SITES, cpu_name  # noqa: E402 (beside this file)

from fedpeft.algebra.average import average_payload, normalised  # noqa: E402
from fedpeft.algebra.lowrank import Factors  # noqa: E402

# FLAP-SAM's code has these constants for Fed-KiTS.
WEIGHTS = normalised([0.03, 0.18, 0.15, 0.10, 0.05, 0.49])
DRIFT = 0.3
KINDS = ("independent", "drifting")
OVERSAMPLED = 10
# A pair: the sites' factors, and those of the last round.
Pair = tuple[list[Factors], Factors]
# What is timed: averages all pairs.
Work = Callable[[], list[Factors]]


def make_pairs(independent: bool, each: int | None = None) -> list[Pair]:
    """Return 38 pairs, or `each` of every shape, as FLAP-SAM's code starts them.

    Args:
        independent: whether sites have nothing in common; else each is at 30 % drift from the last round.
        each: number of pairs of a shape.
    """
    g = torch.Generator().manual_seed(0)

    def start(shape: tuple[int, int], scale: float = 1.0) -> Factors:
        """Kaiming-uniform in A and B, so that B A is not zero."""
        b, a = (
            scale * (2 * torch.rand(size, generator=g) - 1) / size[1] ** 0.5
            for size in ((shape[0], RANK), (RANK, shape[1]))
        )
        return Factors(b, a)

    def site(shape: tuple[int, int], last: Factors) -> Factors:
        own = start(shape, 1.0 if independent else DRIFT)
        return own if independent else Factors(last.b + own.b, last.a + own.a)

    lasts = [start(shape) for shape, count in SHAPES.items() for _ in range(each or count)]
    return [([site(last.shape, last) for _ in range(SITES)], last) for last in lasts]


def ours(pairs: Sequence[Pair]) -> Work:
    """The server's call on what the sites send, the updates of the last round's tensors."""
    base, updates = payload(pairs)
    count = len(pairs)

    def work() -> list[Factors]:
        found, _ = average_payload(base, updates, WEIGHTS, lambda path: "product")
        return [Factors(found[f"{index}.B"], found[f"{index}.A"]) for index in range(count)]

    return work


def payload(pairs: Sequence[Pair]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """The last round's tensors, and the sites' updates of them."""
    base = {f"{index}.{leaf}": tensor for index, (_, last) in enumerate(pairs) for leaf, tensor in leaves(last)}
    trained = [
        {f"{index}.{leaf}": tensor for index, (sites, _) in enumerate(pairs) for leaf, tensor in leaves(sites[site])}
        for site in range(SITES)
    ]
    return base, [{key: tensor - base[key] for key, tensor in one.items()} for one in trained]


def leaves(factors: Factors) -> tuple[tuple[str, Tensor], ...]:
    """The factors under the names that the server gives them."""
    return ("B", factors.b), ("A", factors.a)


def hlora(sites: Sequence[Factors], weights: Sequence[float], rank: int) -> Factors:
    """FLARE's aggregator for low-rank factors; each site may have another rank than the result.

    Returns:
        B (out, rank) with orthonormal columns and A (rank, in) with all singular values; zeros beyond the rank of the
        average.
    """
    roots = [w**0.5 for w in weights]
    left, r1 = torch.linalg.qr(torch.cat([root * site.b for site, root in zip(sites, roots, strict=True)], dim=1))
    right, r2 = torch.linalg.qr(torch.cat([root * site.a for site, root in zip(sites, roots, strict=True)]).mT)
    u, sigma, vh = torch.linalg.svd(r1 @ r2.mT, full_matrices=False)
    kept = min(rank, len(sigma))
    b, a = left.new_zeros(len(left), rank), right.new_zeros(rank, len(right))
    b[:, :kept] = left @ u[:, :kept]
    a[:kept] = sigma[:kept, None] * (vh[:kept] @ right.mT)
    return Factors(b, a)


def dense(sites: Sequence[Factors], weights: Sequence[float]) -> Tensor:
    """All weighted products, then their sum, as FLAP-SAM's code has it."""
    return torch.stack([w * (site.b @ site.a) for site, w in zip(sites, weights, strict=True)]).sum(dim=0)


def dense_full(sites: Sequence[Factors], weights: Sequence[float], rank: int) -> Factors:
    """The sum's full SVD, cut; each factor takes the root of the singular values."""
    u, sigma, vh = torch.linalg.svd(dense(sites, weights), full_matrices=False)
    root = sigma[:rank].sqrt()
    return Factors(u[:, :rank] * root, root[:, None] * vh[:rank])


def dense_randomised(sites: Sequence[Factors], weights: Sequence[float], rank: int) -> Factors:
    """The sum's randomised SVD, unseeded; all singular values go into A."""
    mean = dense(sites, weights)
    if mean.shape[0] < mean.shape[1]:
        u, sigma, vh = randomised_svd(mean.mT, rank)
        return Factors(vh.mT.contiguous(), sigma[:, None] * u.mT)
    u, sigma, vh = randomised_svd(mean, rank)
    return Factors(u, sigma[:, None] * vh)


def randomised_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular triplets, by power iterations on random vectors that are made orthonormal in between."""
    iterations = 7 if rank < 0.1 * min(matrix.shape) else 4
    found = torch.randn(matrix.shape[1], rank + OVERSAMPLED, dtype=matrix.dtype)
    for _ in range(iterations):
        found, _ = torch.linalg.qr(matrix @ found)
        found, _ = torch.linalg.qr(matrix.mT @ found)
    basis, _ = torch.linalg.qr(matrix @ found)
    u, sigma, vh = torch.linalg.svd(basis.mT @ matrix, full_matrices=False)
    return basis @ u[:, :rank], sigma[:rank], vh[:rank]


def by_pair(way: Callable[[Sequence[Factors], Sequence[float], int], Factors]) -> Callable[[Sequence[Pair]], Work]:
    """Average one pair after the other."""
    return lambda pairs: lambda: [way(sites, WEIGHTS, last.rank) for sites, last in pairs]


TITLES = {
    "ours": "ours",
    "hlora": "HLoRA of FLARE's example",
    "dense_randomised": "dense sum, randomised SVD (FLAP-SAM's code)",
    "dense_full": "dense sum, full SVD (its paper)",
}
WAYS: dict[str, Callable[[Sequence[Pair]], Work]] = {
    "ours": ours,
    "hlora": by_pair(hlora),
    "dense_randomised": by_pair(dense_randomised),
    "dense_full": by_pair(dense_full),
}


def peaks(way: str, threads: int) -> dict[str, float]:
    """Return a process's peak in MB, and by how much averaging raised it (call it in a fresh process)."""
    torch.set_num_threads(threads)
    WAYS[way](make_pairs(True, 1)[-1:])()  # the libraries' own start is not what we measure
    work = WAYS[way](make_pairs(True))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_mb": after * 1024 / 1e6, "rise_mb": (after - before) * 1024 / 1e6}


def seconds(pairs: list[Pair], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Return way -> (seconds, processor seconds) of each repeat, the ways taking turns at going first."""
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    works = {way: prepared(pairs) for way, prepared in WAYS.items()}
    for repeat in range(repeats + 1):
        for way in list(WAYS)[:: 1 if repeat % 2 else -1]:
            start, processor = time.perf_counter(), time.process_time()
            works[way]()
            times[way].append((time.perf_counter() - start, time.process_time() - processor))
    # The first is a warm-up.
    return {way: found[1:] for way, found in times.items()}


def best(sites: Sequence[Factors], rank: int) -> Tensor:
    """The best product of that rank, densely and in float64."""
    u, sigma, vh = torch.linalg.svd(dense([site.double() for site in sites], WEIGHTS), full_matrices=False)
    return (u[:, :rank] * sigma[:rank]) @ vh[:rank]


def accuracy(pairs: list[Pair]) -> dict[str, dict[str, float]]:
    """Return way -> relative Frobenius distance to the best product, and norm of B over norm of A, over the pairs."""
    found = {way: prepared(pairs)() for way, prepared in WAYS.items()}
    entries: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for index, (sites, last) in enumerate(pairs):
        wanted = best(sites, last.rank)
        for way, averages in found.items():
            one = averages[index].double()
            distance = float((one.b @ one.a - wanted).norm() / wanted.norm())
            entries[way].append((distance, float(one.b.norm() / one.a.norm())))
    return {way: _summary(values) for way, values in entries.items()}


def _summary(values: Sequence[tuple[float, float]]) -> dict[str, float]:
    distances, ratios = zip(*values, strict=True)
    return {
        "distance_mean": fmean(distances), "distance_max": max(distances),
        "ratio_min": min(ratios), "ratio_max": max(ratios),
    }  # fmt: skip


def measure(repeats: int, threads: int) -> dict[str, Any]:
    """Return everything the table shows, ready for JSON."""
    # First, and each in its own process: a child starts with the peak its parent had when it was made.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {way: pool.apply(peaks, (way, threads)) for way in WAYS}
    torch.set_num_threads(threads)
    times = seconds(make_pairs(True), repeats)
    of_kinds = {kind: accuracy(make_pairs(kind == "independent")) for kind in KINDS}
    entries = {
        way: {"seconds": median(wall), "fastest": min(wall), "cpu_seconds": median(processor)}
        | memory[way]
        | {kind: found[way] for kind, found in of_kinds.items()}
        for way, (wall, processor) in ((way, zip(*found, strict=True)) for way, found in times.items())
    }
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {"sites": SITES, "rank": RANK, "repeats": repeats, **machine, "entries": entries}


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    lines = [
        f"{result['cpu']}, {result['threads']} threads, torch {result['torch']}; {result['sites']} sites, rank "
        f"{result['rank']}, median of {result['repeats']} interleaved repeats",
        "",
        "| way | seconds (fastest) | processor seconds | process peak (rise), MB | distance to the best product, sites "
        "independent: mean, max | the same, 30 % drift | norm of B / norm of A |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for way, entry in result["entries"].items():
        distances = [f"{entry[kind]['distance_mean']:.1e}, {entry[kind]['distance_max']:.1e}" for kind in KINDS]
        spread = [entry[kind][name] for kind in KINDS for name in ("ratio_min", "ratio_max")]
        lines.append(
            f"| {TITLES[way]} | {entry['seconds']:.3f} ({entry['fastest']:.3f}) "
            f"| {entry['cpu_seconds']:.3f} | {entry['peak_mb']:.0f} ({entry['rise_mb']:.0f}) | {' | '.join(distances)} "
            f"| {min(spread):.2f} to {max(spread):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--repeats", type=int, default=7, help="passes of each way (default 7)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads (default: torch's)")
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    result = measure(arguments.repeats, arguments.threads)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

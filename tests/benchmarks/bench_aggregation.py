"""Time, memory and accuracy of averaging one round of SAM vit_b adapters, against a dense reference implementation.

    python tests/benchmarks/bench_aggregation.py [--json FILE] [--repeats 5] [--threads 2]

Six sites, rank 32, LoRA on q and v of every attention: 38 modules, float64, sites at 30 % drift from a common start.
The reference implementation forms every product, sums them and takes the full SVD; ours aligns and reports besides.
Both run in turn within each repeat, so that a busy machine slows them alike. Nothing is asserted: the table is the
result.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "custom"))
from fedpeft.algebra.lowrank import Factors, average_products  # noqa: E402 (runs from a checkout, installed or not)

SITES, RANK, DRIFT = 6, 32, 0.3
WEIGHTS = [k / 21 for k in range(1, SITES + 1)]
# (out, in) -> modules. Encoder q, v; then the decoder: self-attention q, v; the cross and final attentions' q, v.
SHAPES = {(768, 768): 24, (256, 256): 4, (128, 256): 10}

Module = tuple[list[Factors], Factors]


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


def make_modules(shape: tuple[int, int], count: int) -> list[Module]:
    """Return `count` modules: the sites' factors and the last round's."""
    g = torch.Generator().manual_seed(sum(shape))

    def normal(height: int, width: int) -> Tensor:
        return torch.randn(height, width, generator=g, dtype=torch.float64)

    def near(last: Factors) -> Factors:
        return Factors(last.b + DRIFT * normal(*last.b.shape), last.a + DRIFT * normal(*last.a.shape))

    lasts = [Factors(normal(shape[0], RANK), normal(RANK, shape[1])) for _ in range(count)]
    return [([near(last) for _ in range(SITES)], last) for last in lasts]


def ours(sites: list[Factors], last: Factors) -> Factors:
    """Average with fedpeft: aligned, with a report."""
    return average_products(sites, WEIGHTS, last)[0]


def reference(sites: list[Factors], last: Factors) -> Factors:
    """Average the way one would write it first: dense products, their sum, its SVD, cut."""
    mean = sum(w * (site.b @ site.a) for site, w in zip(sites, WEIGHTS, strict=True))
    u, s, vh = torch.linalg.svd(mean, full_matrices=False)
    root = s[: last.rank].sqrt()
    return Factors(u[:, : last.rank] * root, root[:, None] * vh[: last.rank])


WAYS: dict[str, Callable[[list[Factors], Factors], Factors]] = {"ours": ours, "reference": reference}


def peak_memory(way: str, threads: int) -> float:
    """Return the MiB by which one pass over all shapes raises this process's peak (call it in a fresh process)."""
    torch.set_num_threads(threads)
    torch.linalg.svd(torch.randn(32, 32, dtype=torch.float64))  # the libraries' own buffers are not what we measure
    modules = [module for shape in SHAPES for module in make_modules(shape, 1)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for module in modules:
        WAYS[way](*module)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def largest_tensor(way: str, module: Module) -> int:
    """Return the elements of the largest tensor made for one module."""
    with Largest() as seen:
        WAYS[way](*module)
    return seen.numel


def deviation(module: Module) -> float:
    """Return the relative Frobenius norm of the difference of the two products."""
    one, other = ours(*module), reference(*module)
    expected = other.b @ other.a
    return float((one.b @ one.a - expected).norm() / expected.norm())


def seconds(modules: list[Module], repeats: int) -> dict[str, list[float]]:
    """Return way -> seconds for all `modules`, one number a repeat, the ways taking turns at going first."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(repeats):
        for way in list(WAYS)[:: 1 if repeat % 2 else -1]:
            start = time.perf_counter()
            for module in modules:
                WAYS[way](*module)
            times[way].append(time.perf_counter() - start)
    return times


def cpu_name() -> str:
    """Return the CPU's name from /proc/cpuinfo, or what Python knows where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.processor())


def measure(repeats: int, threads: int) -> dict[str, Any]:
    """Return everything the table shows, ready for JSON."""
    # First, and each in its own process: a child starts with the peak its parent had when it was made.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {way: pool.apply(peak_memory, (way, threads)) for way in WAYS}
    torch.set_num_threads(threads)
    entries, passes = [], {way: [0.0] * repeats for way in WAYS}
    for shape, count in SHAPES.items():
        modules = make_modules(shape, count)
        for way in WAYS:
            WAYS[way](*modules[0])  # warm up
        times = seconds(modules, repeats)
        passes = {way: [x + y for x, y in zip(passes[way], times[way], strict=True)] for way in WAYS}
        entries.append(
            {"shape": f"{shape[0]}x{shape[1]}", "modules": count}
            | {f"{way}_s": median(times[way]) for way in WAYS}
            | {f"{way}_largest": largest_tensor(way, modules[0]) for way in WAYS}
            | {"deviation": max(deviation(module) for module in modules)}
        )
    total = {"shape": "all", "modules": sum(SHAPES.values()), "deviation": max(entry["deviation"] for entry in entries)}
    total |= {f"{way}_s": median(passes[way]) for way in WAYS}
    total |= {f"{way}_largest": max(entry[f"{way}_largest"] for entry in entries) for way in WAYS}
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {
        "sites": SITES,
        "rank": RANK,
        "repeats": repeats,
        **machine,
        "entries": [*entries, total],
        "peak_mib": memory,
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as text."""
    lines = [
        f"Averaging {SITES} sites at rank {RANK}, float64, median of {result['repeats']} interleaved repeats",
        f"{result['cpu']}, {result['threads']} thread(s), torch {result['torch']}",
        "",
        f"{'shape':>8} {'modules':>8} {'ours s':>9} {'reference s':>11} {'ratio':>7} {'deviation':>11}"
        f" {'largest tensor: ours':>21} {'reference':>9}",
    ]
    for entry in result["entries"]:
        lines.append(
            f"{entry['shape']:>8} {entry['modules']:>8} {entry['ours_s']:>9.4f} {entry['reference_s']:>11.4f}"
            f" {entry['reference_s'] / entry['ours_s']:>6.1f}x {entry['deviation']:>11.1e}"
            f" {entry['ours_largest']:>21} {entry['reference_largest']:>9}"
        )
    peak = result["peak_mib"]
    return "\n".join(
        [*lines, "", f"peak memory above the inputs: ours {peak['ours']:.1f} MiB, reference {peak['reference']:.1f}"]
    )


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--repeats", type=int, default=5, help="passes of each way (default 5)")
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

"""The server's part of a round of SAM vit_b from bytes to files, against a reference implementation with checkpoints.

    python tests/benchmarks/bench_server_round.py [--json FILE] [--repeats 3] [--threads 2] [--folder DIR]

Six sites, flap_sam at rank 32, one class, sites at 30 % drift from a common model, float32. Ours: six messages as FLARE
writes them are read, decoded and checked, the products averaged, aligned and measured, the run folder written and
flushed. The reference implementation: six whole checkpoints with A and B inside are read one by one, every product is
built densely, everything is averaged, each mean product takes a full SVD and is cut, and a whole checkpoint is written
and flushed; once in float64, as accurate as ours, and once in float32. Each pass is a process of its own, the ways in
turn; what was just written is read from memory by all. Nothing is asserted: the table is the result. Needs 3 GB of
disk.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "custom"))
from bench_aggregation import cpu_name  # noqa: E402 (beside this file)
from nvflare.apis.dxo import DXO, DataKind, from_bytes  # noqa: E402

from fedpeft.algebra.average import normalised  # noqa: E402
from fedpeft.algebra.codec import decode, encode  # noqa: E402
from fedpeft.algebra.feedback import averaged  # noqa: E402
from fedpeft.config.run import make_run  # noqa: E402
from fedpeft.flare.job_run import JobRun  # noqa: E402
from fedpeft.models.initial import named_tensors, skeleton  # noqa: E402
from fedpeft.models.payload import check, payload  # noqa: E402
from fedpeft.training.server.run_folder import RunFolder  # noqa: E402

SITES, DRIFT = 6, 0.3
CASES = list(range(1, SITES + 1))
RUN = make_run("flap_sam", "kits19", "sam_vit_b", classes=1, rank=32)
FACTORS = [key for key in payload(RUN) if RUN.method.rule_of(key) == "product"]


def prepare(folder: Path) -> None:
    """Write the base, six messages and six checkpoints of the same federation."""
    JobRun(RUN.to_dict())  # registers how FLARE writes a tensor
    g = torch.Generator().manual_seed(0)
    # Kernels and factors alike of the size that training leaves them, so that no product is zero.
    base = {key: torch.randn(shape, generator=g) / max(shape) ** 0.5 for key, shape in payload(RUN).items()}
    whole = {key: torch.randn(x.shape, generator=g) for key, x in named_tensors(skeleton(RUN)).items()}
    save_file(base, folder / "base.safetensors")
    for site in range(SITES):
        update = {key: DRIFT * x.std() * torch.randn(x.shape, generator=g) for key, x in base.items()}
        message = DXO(DataKind.WEIGHT_DIFF, data=encode(update, RUN.federation.codec))
        (folder / f"message-{site}").write_bytes(message.to_bytes())
        trained = {key: x + update[key] for key, x in base.items()}
        torch.save(whole | trained, folder / f"checkpoint-{site}.pt")


def ours(folder: Path) -> Iterator[None]:
    """One round as the server's filters, aggregator and persistor do it; what stands before the yield is done once."""
    JobRun(RUN.to_dict())
    declared, weights = payload(RUN), normalised(CASES)
    base = _read(folder / "base.safetensors")
    run_folder = RunFolder(Path(tempfile.mkdtemp(dir=folder)))
    run_folder.start(RUN, "federated", "0" * 64, "0" * 64)
    yield
    updates = []
    for site in range(SITES):
        tensors = decode(from_bytes((folder / f"message-{site}").read_bytes()).data, declared, RUN.federation.codec)
        check(tensors, declared, f"site-{site}")
        updates.append(tensors)
    found, reports = averaged(base, base, updates, weights, RUN.method.rule_of)
    run_folder.record(0, {"averaging": reports}, found)


def reference(dtype: torch.dtype, folder: Path) -> Iterator[None]:
    """One round as one would write it first, but with no more in memory than a model and the sums."""
    weights = normalised(CASES)
    groups = sorted({key.rpartition(".")[0] for key in FACTORS})
    yield
    sums: dict[str, Tensor] = {}
    for site, w in enumerate(weights):
        tensors = torch.load(folder / f"checkpoint-{site}.pt", weights_only=True)
        for group in groups:
            tensors[group] = tensors.pop(f"{group}.B").to(dtype) @ tensors.pop(f"{group}.A").to(dtype)
        for key, x in tensors.items():
            sums[key] = sums[key].add_(x, alpha=w) if key in sums else w * x.to(dtype)
    for group in groups:
        u, s, vh = torch.linalg.svd(sums.pop(group), full_matrices=False)
        root = s[: RUN.option("rank")].sqrt()
        sums |= {
            f"{group}.B": u[:, : RUN.option("rank")] * root,
            f"{group}.A": root[:, None] * vh[: RUN.option("rank")],
        }
    with (folder / "global.pt").open("wb") as stream:
        torch.save({key: x.float() for key, x in sums.items()}, stream)
        os.fsync(stream.fileno())


# The second is the reference implementation at the accuracy of ours, the third at half its digits.
WAYS = {
    "ours": ours,
    "reference64": partial(reference, torch.float64),
    "reference32": partial(reference, torch.float32),
}


def _read(file: Path) -> dict[str, Tensor]:
    with safe_open(file, "pt") as tensors:
        return {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118 (no mapping)


def one_pass(way: str, folder: Path) -> dict[str, float]:
    """Seconds, processor seconds and memory of one round; call it in a fresh process."""
    torch.linalg.svd(torch.randn(32, 32, dtype=torch.float64))  # LAPACK's own start is not what we measure
    steps = WAYS[way](folder)
    next(steps)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, processor = time.perf_counter(), time.process_time()
    next(steps, None)
    seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - processor}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds | {"peak_mb": peak * 1024 / 1e6, "above_start_mb": (peak - before) * 1024 / 1e6}


def measured(way: str, folder: Path, threads: int) -> dict[str, float]:
    """`one_pass` in a process of its own."""
    command = [sys.executable, __file__, "--one", way, "--folder", str(folder), "--threads", str(threads)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout)


def lower_bound(folder: Path, threads: int) -> dict[str, Any]:
    """The least a round of ours can take: its bytes at the speed of a copy, its operations at that of a product.

    Operations of a module (out, in) with R = 6 r: two QR 2 R^2 (n - R / 3), the core 2 R^3 and its SVD 22 R^3
    (Golub and Van Loan), Q applied to r columns on both sides 4 R r n, Procrustes 4 r^2 (out + in); where R is no
    smaller than the matrix, the sum of products and its SVD instead.
    """
    torch.set_num_threads(threads)
    shapes = payload(RUN)
    modules = [(shapes[key][0], shapes[f"{key[:-1]}A"][1]) for key in FACTORS if key.endswith(".B")]
    operations = sum(_operations(out, inn) for out, inn in modules)
    size = sum(file.stat().st_size for file in folder.glob("message-*")) + (folder / "base.safetensors").stat().st_size
    matrix, block = torch.randn(1024, 1024, dtype=torch.float64), torch.zeros(size // 4)
    rate = 2 * 1024**3 / min(_timed(lambda: matrix @ matrix) for _ in range(5))
    speed = size / min(_timed(block.clone) for _ in range(5))
    return {
        "bytes": size,
        "operations": operations,
        "copy_bytes_per_second": speed,
        "float64_operations_per_second": rate,
        "seconds": size / speed + operations / rate,
    }


def _operations(out: int, inn: int) -> float:
    r, total = RUN.option("rank"), RUN.option("rank") * SITES
    align = 4 * r * r * (out + inn)
    if total >= min(out, inn):
        small = min(out, inn)
        return 2 * out * inn * total + 6 * out * inn * small + 16 * small**3 + align
    products = sum(2 * total**2 * (n - total / 3) + 4 * total * r * n for n in (out, inn))
    return products + 24 * total**3 + align


def _timed(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def measure(folder: Path, repeats: int, threads: int) -> dict[str, Any]:
    """Everything the table shows, ready for JSON."""
    # In another process: one that is started begins with the peak of its parent.
    subprocess.run([sys.executable, __file__, "--prepare", "--folder", str(folder)], check=True)
    passes: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for repeat in range(repeats):
        for way in list(WAYS)[:: 1 if repeat % 2 else -1]:
            passes[way].append(measured(way, folder, threads))
    entries = {way: {key: median(one[key] for one in found) for key in found[0]} for way, found in passes.items()}
    for entry in entries.values():
        entry["ratio"] = entry["seconds"] / entries["ours"]["seconds"]
    return {
        "sites": SITES,
        "rank": RUN.option("rank"),
        "repeats": repeats,
        "threads": threads,
        "cpu": cpu_name(),
        "torch": torch.__version__,
        **entries,
        "lower_bound": lower_bound(folder, threads),
    }


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [f"Server round of {SITES} sites, {RUN.model.backbone}, rank {RUN.option('rank')}"]
    lines.append(f"{result['cpu']}, {result['threads']} thread(s), torch {result['torch']}")
    lines.append(f"{'':>11} {'seconds':>9} {'cpu s':>9} {'peak MB':>9} {'above start MB':>15} {'of ours':>8}")
    for way in WAYS:
        entry = result[way]
        lines.append(
            f"{way:>11} {entry['seconds']:>9.3f} {entry['cpu_seconds']:>9.3f} {entry['peak_mb']:>9.0f}"
            f" {entry['above_start_mb']:>15.0f} {entry['ratio']:>7.1f}x"
        )
    least = result["lower_bound"]
    lines.append(
        f"  lower bound {least['seconds']:>9.3f}  = {least['bytes'] / 1e6:.0f} MB copied at "
        f"{least['copy_bytes_per_second'] / 1e9:.1f} GB/s + {least['operations'] / 1e9:.1f} billion "
        f"operations at {least['float64_operations_per_second'] / 1e9:.0f} billion/s in float64"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--repeats", type=int, default=3, help="passes of each way (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--folder", type=Path, help="where to write 3 GB (default: the system's temporary folder)")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.folder)
        return
    if arguments.one:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(one_pass(arguments.one, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(Path(folder), arguments.repeats, arguments.threads)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

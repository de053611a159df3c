"""Seconds that passed and seconds of processor, the least that they could be, and what they were measured on."""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from fedpeft.config.run import Run

T = TypeVar("T")


def timed(function: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """Return what a function returns, and the seconds that it took: passed, and of processor in all threads."""
    passed, used = time.perf_counter(), time.process_time()
    result = function()
    return result, (time.perf_counter() - passed, time.process_time() - used)


def medians(times: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """Return the medians of both clocks for each way, and the ratios of reference to ours."""
    found: dict[str, float] = {}
    for way, pairs in times.items():
        found |= {f"{way}_s": median(a for a, _ in pairs), f"{way}_cpu_s": median(b for _, b in pairs)}
    ratios = {
        "ratio": found["reference_s"] / found["ours_s"],
        "cpu_ratio": found["reference_cpu_s"] / found["ours_cpu_s"],
    }
    return found | ratios


def operations(function: Callable[[], Any]) -> int:
    """Return the multiplications and additions of a function's matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def rate(run: Run, precision: str = "float32", device: str = "cpu") -> float:
    """Return the operations a second of the largest product of a run's step, the best of ten."""
    backbone, kind = run.backbone, torch.bfloat16 if precision == "bfloat16" else torch.float32
    tokens = run.training.batch * run.data.stack * (run.model.image_size // backbone.patch) ** 2
    left, right = (
        torch.randn(n, m, device=device, dtype=kind)
        for n, m in ((tokens, backbone.dim), (backbone.dim, 4 * backbone.dim))
    )

    def product() -> None:
        left @ right
        if device != "cpu":
            torch.cuda.synchronize()

    return 2 * tokens * backbone.dim * 4 * backbone.dim / min(timed(product)[1][0] for _ in range(10))


def machine() -> dict[str, Any]:
    """Return the processor's name, torch's version, threads and instruction set."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    return {
        "cpu": name,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }

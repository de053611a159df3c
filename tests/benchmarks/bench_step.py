"""Time and memory of a training step, against a reference implementation: published attention, torch's default AdamW.

    python tests/benchmarks/bench_step.py [--json FILE] [--repeats 7] [--threads 2] [--method flap_sam]
        [--image-size 224] [--batch 1] [--device cpu]

sam_vit_b with random weights and noise for images: values do not change the time. The ways take turns, so that a
busy machine slows them alike; processor seconds stand beside the seconds that passed. bfloat16 is measured where the
device has it. Losses are compared after every step. Nothing is asserted: the table is the result.

The lower bound is what the step's matrix products alone need: their operations, counted by torch, at the rate that this
device reaches on the largest of them.
"""

import argparse
import json
import multiprocessing
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "custom"))
from clocks import machine, medians, operations, rate, timed  # noqa: E402
from reference_step import reference_model, reference_step  # noqa: E402

from fedpeft.common.precision import native_bfloat16  # noqa: E402
from fedpeft.config.run import Run, make_run  # noqa: E402
from fedpeft.models.initial import build  # noqa: E402 (runs from a checkout, installed or not)
from fedpeft.models.payload import trainable  # noqa: E402
from fedpeft.tasks.segmentation import make_loss  # noqa: E402
from fedpeft.training.engine.loop import train_epoch  # noqa: E402
from fedpeft.training.engine.optimiser import make_optimiser  # noqa: E402

Step = Callable[[Tensor, Tensor], float]


def batch(run: Run, device: str) -> tuple[Tensor, Tensor]:
    """Slices (batch * stack, 1, size, size) of noise and their labels."""
    generator = torch.Generator().manual_seed(0)
    shape = (run.training.batch * run.data.stack, run.model.image_size, run.model.image_size)
    images = torch.randn(shape, generator=generator).unsqueeze(1)
    return images.to(device), torch.randint(0, run.outputs, shape, generator=generator).to(device)


def make_step(way: str, precision: str, run: Run, device: str) -> Step:
    """A function of a batch that trains one step and returns its loss; way is "reference" or "ours"."""
    model, loss = build(run, None).train(), make_loss(run)
    if way == "reference":
        return reference_step(reference_model(model).to(device), run, loss, precision)
    optimiser = make_optimiser(run, trainable(model.to(device)))

    def step(images: Tensor, labels: Tensor) -> float:
        rate = run.training.learning_rate
        return train_epoch(model, optimiser, loss, [(images, labels)], lambda _: rate, lambda: False, precision)[0]

    return step


def peak_memory(way: str, precision: str, run: Run, device: str, threads: int) -> float:
    """Peak in MiB of two steps with all that they need; on a processor call it in a fresh process."""
    torch.set_num_threads(threads)
    step = make_step(way, precision, run, device)
    for _ in range(2):
        step(*batch(run, device))
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(run: Run, repeats: int, threads: int, device: str) -> dict[str, Any]:
    """Return everything the table shows, ready for JSON."""
    precisions = ["float32", "bfloat16"][: 1 + native_bfloat16(torch.device(device))]
    kinds = [(way, precision) for precision in precisions for way in ("reference", "ours")]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {kind: pool.apply(peak_memory, (*kind, run, device, threads)) for kind in kinds}
    torch.set_num_threads(threads)
    steps = {kind: make_step(*kind, run, device) for kind in kinds}
    times: dict[tuple[str, str], list[tuple[float, float]]] = {kind: [] for kind in kinds}
    losses: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    data = batch(run, device)
    for repeat in range(repeats + 1):
        for kind in kinds[:: 1 if repeat % 2 else -1]:
            loss, spent = timed(partial(steps[kind], *data))
            losses[kind].append(loss)
            if repeat:
                times[kind].append(spent)
    reference = make_step("reference", "float32", run, "cpu")
    count = operations(partial(reference, *batch(run, "cpu")))
    entries = [
        {"precision": precision, **medians({way: times[way, precision] for way in ("reference", "ours")})}
        | {f"{way}_peak_mib": memory[way, precision] for way in ("reference", "ours")}
        | {"lower_bound_s": count / (speed := rate(run, precision, device)), "operations_per_s": speed}
        | {
            "against_reference_float32": medians(
                {"reference": times["reference", "float32"], "ours": times["ours", precision]}
            )
        }
        | {
            "loss_deviation": max(
                abs(a - b) for a, b in zip(losses["reference", "float32"], losses["ours", precision], strict=True)
            )
        }
        for precision in precisions
    ]
    name = torch.cuda.get_device_name(device) if device != "cpu" else "cpu"
    what = {
        "method": run.model.method,
        "image_size": run.model.image_size,
        "slices": run.training.batch * run.data.stack,
        "operations": count,
    }
    return {**what, "device": name, "repeats": repeats, **machine(), "entries": entries}


def table(result: dict[str, Any]) -> str:
    """Return the result as text."""
    lines = [
        f"A step of {result['method']}, sam_vit_b, image size {result['image_size']}, {result['slices']} slices; "
        f"median of {result['repeats']} interleaved steps",
        f"{result['cpu']} ({result['instructions']}), {result['threads']} thread(s), torch {result['torch']}, device "
        f"{result['device']}",
        "",
        f"{'precision':>10} {'ours s':>8} {'reference s':>11} {'ratio':>6} {'ours cpu s':>11} {'reference cpu s':>15}"
        f" {'ratio':>6} {'to reference float32':>20} {'bound s':>8} {'ours MiB':>9} {'reference MiB':>13}"
        f" {'loss differs':>13}",
    ]
    for entry in result["entries"]:
        lines.append(
            f"{entry['precision']:>10} {entry['ours_s']:>8.3f} {entry['reference_s']:>11.3f} {entry['ratio']:>5.2f}x"
            f" {entry['ours_cpu_s']:>11.3f} {entry['reference_cpu_s']:>15.3f} {entry['cpu_ratio']:>5.2f}x"
            f" {entry['against_reference_float32']['ratio']:>19.2f}x {entry['lower_bound_s']:>8.3f}"
            f" {entry['ours_peak_mib']:>9.0f} {entry['reference_peak_mib']:>13.0f} {entry['loss_deviation']:>13.1e}"
        )
    if len(result["entries"]) == 1:
        lines.append("  bfloat16: not measured, this device has none")
    products = result["operations"] / 1e9
    lines.append(
        f"lower bound: {products:.0f} billion operations of the step's products at the rate of the largest of them"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--repeats", type=int, default=7, help="steps of each way (default 7)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads (default: torch's)")
    parser.add_argument("--method", default="flap_sam", help="method (default flap_sam)")
    parser.add_argument(
        "--image-size", type=int, default=224, help="height and width of the input in pixels (default 224)"
    )
    parser.add_argument("--batch", type=int, default=1, help="stacks of 5 slices in a step (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0 (default cpu)")
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    sizes = {"image_size": arguments.image_size, "batch": arguments.batch}
    run = make_run(arguments.method, "phantom", "sam_vit_b", classes=2, initial="random", **sizes)
    result = measure(run, arguments.repeats, arguments.threads, arguments.device)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Time of an epoch, against a reference implementation: every slice in five stacks, read and augmented one by one.

    python tests/benchmarks/bench_epoch.py [--json FILE] [--repeats 3] [--threads 2] [--cases 2] [--image-size 224]

sam_vit_b with random weights on synthetic volumes, one stack a step; the reference implementation in float32, ours in
float32 and, where the processor has it, in bfloat16. Both ways train on slices of the same volumes, chosen by the same
rule. A whole epoch takes minutes: a few batches of each way are timed in turn, from reading to the optimiser's step,
and an epoch is its slices times the median seconds of a slice. The machine may have other work: processor seconds stand
beside the seconds that passed. flap_sam, and pdec_ft, whose encoder is frozen, from its second epoch on.

The lower bound is what the products of our batches need, counted by torch, at the rate of the largest of them.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "custom"))
from clocks import machine, operations, rate, timed  # noqa: E402
from reference_epoch import ReferenceStacks, reference_batches  # noqa: E402
from reference_step import reference_model, reference_step  # noqa: E402

from fedpeft.common.precision import native_bfloat16  # noqa: E402
from fedpeft.config.datasets import DATASETS  # noqa: E402
from fedpeft.config.run import Run, make_run  # noqa: E402
from fedpeft.data.cache import Cache  # noqa: E402 (runs from a checkout, installed or not)
from fedpeft.data.datalist import Site, read_site  # noqa: E402
from fedpeft.data.phantom.sites import write_phantom  # noqa: E402
from fedpeft.models.initial import build  # noqa: E402
from fedpeft.models.payload import trainable  # noqa: E402
from fedpeft.tasks.segmentation import SegmentationTask, make_loss  # noqa: E402
from fedpeft.tasks.types import Batch
from fedpeft.training.engine.embeddings import FrozenEncoder  # noqa: E402
from fedpeft.training.engine.loop import train_epoch  # noqa: E402
from fedpeft.training.engine.optimiser import make_optimiser  # noqa: E402
from fedpeft.training.engine.prefetch import prefetch  # noqa: E402

# A batch, timed: its slices, seconds that passed, seconds of processor.
Timed = tuple[int, float, float]
PREPROCESSING = DATASETS["phantom"].preprocessing


def reference_steps(run: Run, samples: ReferenceStacks) -> Iterator[Timed]:
    """Yield a timed step of the reference implementation after the other, without end."""
    step = reference_step(reference_model(build(run, None)), run, make_loss(run))
    batches = chain.from_iterable(reference_batches(samples, run, seed) for seed in repeat(0))

    def one() -> int:
        images, labels = next(batches)
        step(images, labels)
        return len(images)

    while True:
        slices, spent = timed(one)
        yield slices, *spent


def our_step(run: Run, network: torch.nn.Module) -> Callable[[Batch], object]:
    """Return a function of a batch that trains a step of ours."""
    optimiser, loss = make_optimiser(run, trainable(network)), make_loss(run)
    always = (lambda _: run.training.learning_rate), (lambda: False)
    return lambda batch: train_epoch(network, optimiser, loss, [batch], *always, run.training.precision)


def our_steps(run: Run, network: torch.nn.Module, batches: Callable[[], Iterator[Batch]]) -> Iterator[Timed]:
    """Yield a timed step of ours after the other, without end; the same few batches again and again."""
    stream, step = prefetch(chain.from_iterable(batches() for _ in repeat(0))), our_step(run, network)

    def one() -> int:
        batch = next(stream)
        step(batch)
        return len(batch[0])

    while True:
        slices, spent = timed(one)
        yield slices, *spent


def measure(run: Run, site: Site, folder: Path, repeats: int, frozen: bool) -> dict[str, Any]:
    """Return one entry: slices of an epoch, seconds of a slice and of an epoch, both ways, and ratios."""
    task = SegmentationTask()
    volumes = [volume for _, volume in task.read(run, site, "training", PREPROCESSING)]
    samples, data = ReferenceStacks(volumes, folder, run), task.training_data(run, site, lambda: None, Cache())
    model = build(run, None)
    network = FrozenEncoder(model, Cache()) if frozen else model
    ours = our_steps(run, network, lambda: islice(data.epoch(0), min(3, data.steps())))
    reference = reference_steps(run, samples)
    # The first batches are for warming up; the frozen encoder's, its first epoch.
    first = [next(ours) for _ in range(min(3, data.steps()) if frozen else 1)]
    next(reference)
    times = [(next(reference), next(ours)) for _ in range(repeats)]
    slices = {"reference": len(samples) * run.data.stack, "ours": sum(len(images) for images, _ in data.epoch(0))}
    entry: dict[str, Any] = {"method": run.model.method, "precision": run.training.precision}
    entry["epochs"] = "from the second" if frozen else "every"
    for number, way in enumerate(slices):
        entry |= {f"{way}_slices": slices[way]} | _seconds([pair[number] for pair in times], slices[way], way)
    if frozen:
        entry |= {"ours_first_cpu_s": _seconds(first, slices["ours"], "ours")["ours_cpu_s"]}
    batch = next(iter(data.epoch(0)))
    count = operations(lambda: our_step(run, network)(batch)) * slices["ours"] // len(batch[0])
    entry |= {"operations": count, "lower_bound_s": count / rate(run, run.training.precision)}
    return entry | {f"{kind}ratio": entry[f"reference_{kind}s"] / entry[f"ours_{kind}s"] for kind in ("", "cpu_")}


def _seconds(times: list[Timed], slices: int, way: str) -> dict[str, float]:
    """An epoch's seconds on both clocks, from the median of a slice's."""
    passed, used = (sorted(time[clock] / time[0] for time in times)[len(times) // 2] for clock in (1, 2))
    return {f"{way}_s": slices * passed, f"{way}_cpu_s": slices * used}


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--repeats", type=int, default=3, help="batches of each way (default 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads (default: torch's)")
    parser.add_argument("--cases", type=int, default=2, help="volumes (default 2)")
    parser.add_argument("--image-size", type=int, default=224, help="the network's input (default 224)")
    parser.add_argument("--backbone", default="sam_vit_b")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        site = read_site(write_phantom(Path(folder) / "phantom", sites=1, seed=0) / "site-1")
        site.splits["training"] = site.splits["training"][: arguments.cases]
        run = make_run("flap_sam", "phantom", arguments.backbone, classes=2, image_size=arguments.image_size, batch=1)
        precisions = ["float32", "bfloat16"][: 1 + native_bfloat16(torch.device("cpu"))]
        entries = [
            measure(run.with_(method=method, precision=precision), site, Path(folder), arguments.repeats, frozen)
            for method, frozen in (("flap_sam", False), ("pdec_ft", True))
            for precision in precisions
        ]
    result = {
        "backbone": run.model.backbone,
        "image_size": run.model.image_size,
        "repeats": arguments.repeats,
        **machine(),
        "entries": entries,
    }
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def table(result: dict[str, Any]) -> str:
    """Return the result as text."""
    lines = [
        f"{result['cpu']} ({result['instructions']}), {result['threads']} thread(s), torch {result['torch']}",
        f"An epoch, {result['backbone']} at {result['image_size']}, from medians of {result['repeats']} batches; "
        "seconds that pass (seconds of processor)",
        f"{'method':>9} {'precision':>9} {'epochs':>16} {'slices: reference':>17} {'ours':>6} {'reference':>17}"
        f" {'ours':>17} {'ratio':>15} {'bound s':>8}",
    ]
    for entry in result["entries"]:
        clocks = {way: f"{entry[f'{way}_s']:.1f} ({entry[f'{way}_cpu_s']:.1f})" for way in ("reference", "ours")}
        lines.append(
            f"{entry['method']:>9} {entry['precision']:>9} {entry['epochs']:>16} {entry['reference_slices']:>17}"
            f" {entry['ours_slices']:>6} {clocks['reference']:>17} {clocks['ours']:>17} {entry['ratio']:>6.1f}x"
            f" ({entry['cpu_ratio']:.1f}x) {entry['lower_bound_s']:>8.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

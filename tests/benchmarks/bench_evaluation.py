"""Time of predicting a volume, against a reference implementation: overlapping stacks of five, published attention.

    python tests/benchmarks/bench_evaluation.py [--json FILE] [--repeats 3] [--threads 2] [--depth 100]
        [--image-size 224]

sam_vit_b with random weights, flap_sam, one volume of noise with 256 x 256 voxels a slice; the reference implementation
in float32, ours in float32 and, where the processor has it, in bfloat16. The ways take turns. The machine may have
other work: processor seconds stand beside the seconds that passed. Masks are compared, and where they differ, how near
the two likeliest classes are. The lower bound is what the products of each slice need once, counted by torch, at the
rate of the largest of them.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "custom"))
from clocks import machine, medians, operations, rate, timed  # noqa: E402
from reference_epoch import reference_probabilities  # noqa: E402
from reference_step import reference_model  # noqa: E402

from fedpeft.common.precision import computing, native_bfloat16  # noqa: E402
from fedpeft.config.run import Run, make_run  # noqa: E402
from fedpeft.data.volumes.volume import Volume  # noqa: E402 (runs from a checkout, installed or not)
from fedpeft.models.initial import build  # noqa: E402
from fedpeft.tasks.volume_masks import predict_mask  # noqa: E402

NATIVE = 256


def noise(depth: int, size: int = NATIVE) -> Volume:
    """A volume of blurred noise, in memory."""
    values = torch.randn(depth, 1, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(values, (size, size), mode="bilinear")[:, 0].permute(1, 2, 0).contiguous()
    return Volume("noise", image, None, (1.0, 1.0, 1.0), "volume", None, None, np.eye(4))


def measure(run: Run, depth: int, repeats: int) -> dict[str, Any]:
    """Return everything the table shows, ready for JSON."""
    volume, model = noise(depth), build(run, None).eval()
    reference = reference_model(model)
    device = torch.device("cpu")
    precisions = ["float32", "bfloat16"][: 1 + native_bfloat16(device)]
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ("reference", *precisions)}
    masks = {}
    for _ in range(repeats):
        expected, spent = timed(lambda: reference_probabilities(reference, volume, run))
        times["reference"].append(spent)
        for precision in precisions:
            with computing(precision, device):
                masks[precision], spent = timed(lambda: predict_mask(model, volume, run))
            times[precision].append(spent)
    stack = run.with_(batch=1)
    with torch.no_grad():
        count = (
            operations(lambda: model(torch.randn(run.data.stack, 1, run.model.image_size, run.model.image_size)))
            * depth
            // run.data.stack
        )
    entries = [
        {"precision": precision, **medians({"reference": times["reference"], "ours": times[precision]})}
        | {"lower_bound_s": count / (speed := rate(stack, precision)), "operations_per_s": speed}
        | deviations(expected, masks[precision])
        for precision in precisions
    ]
    head = {
        "backbone": run.model.backbone,
        "image_size": run.model.image_size,
        "slices": depth,
        "native": NATIVE,
        "repeats": repeats,
    }
    return head | {"operations": count} | machine() | {"entries": entries}


def deviations(expected: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
    """Share of voxels whose class differs, and the largest gap between the two likeliest classes among these."""
    best = expected.topk(2, dim=1)
    other = best.indices[:, 0] != found.permute(2, 0, 1)
    gaps = (best.values[:, 0] - best.values[:, 1])[other]
    return {"differing": float(other.float().mean()), "largest_gap": float(gaps.max()) if len(gaps) else 0.0}


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads (default: torch's)")
    parser.add_argument("--depth", type=int, default=100, help="slices (default 100)")
    parser.add_argument("--image-size", type=int, default=224, help="the network's input (default 224)")
    parser.add_argument("--backbone", default="sam_vit_b")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = make_run("flap_sam", "phantom", arguments.backbone, classes=2, image_size=arguments.image_size)
    result = measure(run, arguments.depth, arguments.repeats)
    print(
        f"{result['cpu']} ({result['instructions']}), {result['threads']} thread(s), torch {result['torch']}\n"
        f"{result['slices']} slices, {run.model.backbone} at {run.model.image_size}, "
        f"medians of {result['repeats']}; seconds that pass "
        "(seconds of processor)"
    )
    for entry in result["entries"]:
        print(
            f"{entry['precision']}: reference {entry['reference_s']:.1f} ({entry['reference_cpu_s']:.1f}), "
            f"ours {entry['ours_s']:.1f} ({entry['ours_cpu_s']:.1f}), {entry['ratio']:.1f}x "
            f"({entry['cpu_ratio']:.1f}x), lower bound {entry['lower_bound_s']:.1f}; "
            f"voxels that differ {entry['differing']:.2e}, largest gap of their two likeliest classes "
            f"{entry['largest_gap']:.1e}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

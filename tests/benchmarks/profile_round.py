"""Where the time of a site's round goes: validation and training of flap_sam, sam_vit_b, seen by torch's profiler.

    python tests/benchmarks/profile_round.py [--method flap_sam] [--image-size 224] [--cases 1]

Random weights, synthetic volumes. Operations count with their own time, without that of what they call; shares hardly
depend on what else the machine does. The profiler sees one thread: torch has no more here, and what reads and augments
the next batch beside the step is not seen.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "custom"))
from clocks import machine  # noqa: E402 (beside this file)

from fedpeft.config.run import make_run  # noqa: E402
from fedpeft.data.datalist import read_site  # noqa: E402 (runs from a checkout, installed or not)
from fedpeft.data.phantom.sites import write_phantom  # noqa: E402
from fedpeft.models.initial import build  # noqa: E402
from fedpeft.training.client.trainer import SiteTrainer  # noqa: E402

# The first that fits counts. In float32 on a processor attention is all batched products and all softmax there is.
KINDS = {
    "products of layers": ("aten::addmm", "aten::mm"),
    "low-rank updates": ("aten::addmm_", "LowRank"),
    "attention": ("aten::bmm", "aten::baddbmm", "softmax", "GridProduct", "scaled_dot"),
    "convolutions": ("convolution", "ConvolutionBackward"),
    "normalisation, GELU": ("layer_norm", "gelu", "group_norm", "relu"),
    "copies": ("aten::copy_", "aten::cat", "aten::fill_", "aten::clone", "aten::index"),
    "sums and other arithmetic": ("aten::add", "aten::mul", "aten::sum", "aten::div", "aten::sub", "aten::sqrt"),
    "optimiser": ("adamw", "adam"),
}


def kind_of(name: str) -> str:
    """The kind of an operation."""
    exact = (kind for kind, names in KINDS.items() if name in names)
    part = (kind for kind, names in KINDS.items() if any(known in name for known in names))
    return next(exact, None) or next(part, "all others")


def shares(work: Callable[[], object]) -> dict[str, float]:
    """Kind -> seconds of its operations, the largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    found: dict[str, float] = {}
    for item in seen.key_averages():
        kind = kind_of(item.key)
        found[kind] = found.get(kind, 0.0) + item.self_cpu_time_total / 1e6
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="flap_sam")
    parser.add_argument("--image-size", type=int, default=224, help="the network's input (default 224)")
    parser.add_argument("--cases", type=int, default=1, help="volumes that train, and that validate (default 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = make_run(
        arguments.method,
        "phantom",
        "sam_vit_b",
        classes=2,
        initial="random",
        image_size=arguments.image_size,
        batch=1,
        rounds=2,
    )
    with tempfile.TemporaryDirectory() as folder:
        site = read_site(write_phantom(Path(folder) / "phantom", sites=1, seed=0) / "site-1")
        for split in ("training", "validation"):
            site.splits[split] = site.splits[split][: arguments.cases]
        trainer = SiteTrainer(run, site, build(run, None), Path(folder) / "state")
        received = {path: tensor.detach().clone() for path, tensor in trainer.parameters.items()}
        trainer.train(received, 0)
        parts = {"validation": lambda: trainer.validate(received, 1), "training": lambda: trainer.train(received, 1)}
        print(json.dumps(machine()))
        for name, work in parts.items():
            found = shares(work)
            total = sum(found.values())
            print(f"\n{name}: {total:.1f} s")
            for kind, seconds in found.items():
                print(f"  {seconds / total:6.1%}  {kind}")


if __name__ == "__main__":
    main()

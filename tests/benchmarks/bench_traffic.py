"""What a round costs on FLARE's wire: full fine-tuning in float32 beside FLAP-SAM's codecs and ranks, SAM ViT-B.

Every variant's payload of random numbers goes from a server to a site and back, over TCP. A direction's bytes are
those that FLARE itself gives for the message (keys, meta data, our headers) and for its tensors (safetensors with
headers); "values" are those of the numbers and scales alone. They are the same in every round and at every site.

    python tests/benchmarks/bench_traffic.py --json traffic.json

With --simulator every variant is a round of one site through FLARE's simulator instead, with random weights and one
training step on a slice of a phantom; the bytes are those of the client's log.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from messages_by_tcp import Sizes, Wire

from fedpeft.config.jobs import Job
from fedpeft.config.run import Run, make_run
from fedpeft.data.phantom.sites import write_phantom
from fedpeft.flare.filters import declared_bytes
from fedpeft.flare.rendering import policy, write
from fedpeft.models.payload import payload
from fedpeft.study.run.simulate import simulate
from fedpeft.training.client.site_file import register

SECONDS = 900
SITE = "site-1"
NUMBER = r"\(([\d,]+) [Bb]ytes\)"
# What the client's log says: of the tensors that it fetched and that were fetched from it, and of the messages.
TENSORS = {"down": rf"\[client\] download ref=.*{NUMBER}", "up": rf"\[server\] download tx .*{NUMBER}"}
MESSAGES = {"down": rf"getTask: train size: .*{NUMBER}", "up": rf"SubmitUpdate to: .*{NUMBER}"}


@dataclass(frozen=True)
class Variant:
    """What is measured; ``least`` is the ratio that the codec was built to reach, 0 where there is none."""

    method: str
    classes: int
    codec: str
    rank: int = 0
    least: int = 0

    @property
    def name(self) -> str:
        """For people and for --only."""
        rank = f"-r{self.rank}" if self.rank else ""
        return f"{self.method}{rank}-{self.codec}-{self.classes}"


VARIANTS = [
    Variant("full_ft", 1, "float32"),
    Variant("flap_sam", 1, "float32"),
    Variant("flap_sam", 1, "bfloat16", least=104),
    Variant("flap_sam", 1, "int8", least=200),
    Variant("flap_sam", 1, "int8", rank=4, least=650),
    Variant("full_ft", 2, "float32"),
    Variant("flap_sam", 2, "float32"),
    Variant("flap_sam", 2, "bfloat16", least=97),
    Variant("flap_sam", 2, "int8", least=190),
    Variant("flap_sam", 2, "int8", rank=4, least=500),
]


def one_case(folder: Path, classes: int) -> Path:
    """A site with one training volume and nothing to validate; its classes are merged where one is asked for."""
    write_phantom(folder, sites=1, seed=0)
    file = folder / SITE / "datalist.json"
    datalist = json.loads(file.read_text())
    names = {int(key): name for key, name in datalist["labels"].items()}
    datalist["labels"] = {str(key): name for key, name in names.items() if key <= classes}
    datalist |= {"training": datalist["training"][:1], "validation": [], "test": []}
    file.write_text(json.dumps(datalist))
    label = file.parent / datalist["training"][0]["label"]
    volume = nib.load(label)
    merged = np.minimum(np.asanyarray(volume.dataobj), classes).astype(np.uint8)
    nib.save(nib.Nifti1Image(merged, volume.affine), label)
    return folder


def run_of(variant: Variant, backbone: str) -> Run:
    """One round of one step of one slice."""
    return make_run(
        variant.method,
        "phantom",
        backbone,
        classes=variant.classes,
        rank=variant.rank,
        codec=variant.codec,
        rounds=1,
        batch=1,
        stack=1,
        stride=1,
        local_epochs=1e-3,
        initial="random",
    )


def wire(lines: Iterable[str]) -> Sizes:
    """Direction -> bytes of the first message and the first tensors of the client's log.

    Raises:
        RuntimeError: the log lacks one of them.
    """
    text = list(lines)

    def first(pattern: str) -> int:
        for line in text:
            if found := re.search(pattern, line):
                return int(found[1].replace(",", ""))
        raise RuntimeError(f"the client's log has no line like {pattern!r}; is this FLARE 2.9?")

    return {way: {"message": first(MESSAGES[way]), "tensors": first(TENSORS[way])} for way in TENSORS}


def through_the_simulator(run: Run, folder: Path) -> Sizes:
    """Run a job and read the client's log."""
    workspace = folder / "workspace"
    (workspace / "local").mkdir(parents=True)
    (workspace / "local" / "resources.json").write_text(json.dumps(policy()))
    register(workspace, run.data.dataset, one_case(folder / "data", run.data.classes))
    job = write(Job("traffic", run.config, min_sites=1, poll_seconds=0.2), folder / "jobs")
    simulate(job, workspace, [SITE], 1, SECONDS, lambda record: None)
    return wire((workspace / SITE / "log.txt").read_text().splitlines())


def simulated(runs: list[Run]) -> Iterator[Sizes]:
    """Every run in a workspace of its own."""
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            yield through_the_simulator(run, Path(folder))


def exchanged(runs: list[Run]) -> Iterator[Sizes]:
    """Every run's payload through the same two end points."""
    ends = Wire()
    try:
        yield from map(ends.sizes, runs)
    finally:
        ends.stop()


def result_of(variant: Variant, run: Run, found: Sizes) -> dict[str, Any]:
    """A variant's line of the table."""
    totals = {way: sum(parts.values()) for way, parts in found.items()}
    values = declared_bytes(payload(run), run.federation.codec)
    return {
        "entry": variant.name,
        "classes": variant.classes,
        "values": values,
        "least": variant.least,
        "parts": found,
    } | totals


def compared(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results with their ratios to full fine-tuning of as many classes, where that was measured."""
    full = {item["classes"]: item for item in results if item["entry"].startswith("full_ft")}
    ways = ("down", "up")
    return [
        item
        | {"ratios": {way: full[item["classes"]][way] / item[way] for way in ways} if item["classes"] in full else {}}
        for item in results
    ]


def table(results: list[dict[str, Any]]) -> str:
    """The results as text."""
    lines = [f"{'method, codec, classes':28} {'values':>13} {'down':>13} {'up':>13} {'down':>8} {'up':>8} {'aim':>6}"]
    for item in results:
        ratios = "".join(f" {item['ratios'][way]:>7.1f}x" if item["ratios"] else " " * 9 for way in ("down", "up"))
        least = f"{item['least']}x" if item["least"] else ""
        lines.append(
            f"{item['entry']:28} {item['values']:>13,} {item['down']:>13,} {item['up']:>13,}{ratios} {least:>6}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--backbone", default="sam_vit_b", help="backbone (default sam_vit_b)")
    parser.add_argument("--simulator", action="store_true", help="rounds through FLARE's simulator, minutes each")
    parser.add_argument("--only", nargs="+", choices=[variant.name for variant in VARIANTS], help="measure these alone")
    arguments = parser.parse_args()
    variants = [variant for variant in VARIANTS if not arguments.only or variant.name in arguments.only]
    runs = [run_of(variant, arguments.backbone) for variant in variants]
    sizes = (simulated if arguments.simulator else exchanged)(runs)
    results = compared([result_of(*item) for item in zip(variants, runs, sizes, strict=True)])
    print(table(results))
    if arguments.json:
        how = {"backbone": arguments.backbone, "simulator": arguments.simulator, "unit": "bytes a round and site"}
        arguments.json.write_text(json.dumps(how | {"entries": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()

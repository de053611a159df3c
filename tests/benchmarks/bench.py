"""All benchmarks, one after the other, and one table of them: what ``make bench`` does.

    python tests/benchmarks/bench.py [--out runs/bench] [--only step epoch ...] [--threads 2]

Each writes its own JSON into the folder; ``bench.json`` holds them together, ``table.md`` the table. Benchmarks that
are not run keep their last result. Wants a machine with nothing else to do, and about 20 minutes of 2 cores.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

HERE = Path(__file__).parent
Result = dict[str, Any]


class Line(NamedTuple):
    """A line of the table."""

    what: str
    ours: str
    reference: str
    ratio: str
    lower_bound: str


def steps(result: Result) -> Iterator[Line]:
    """Time and memory of a training step."""
    for entry in result["entries"]:
        what = f"step, {entry['precision']}, {result['image_size']} px, {result['slices']} slices"
        against, products = entry["against_reference_float32"], f"{result['operations'] / 1e9:.0f} G operations"
        yield Line(
            what,
            seconds(entry["ours_s"]),
            seconds(against["reference_s"]),
            times(against["ratio"]),
            f"{seconds(entry['lower_bound_s'])}: {products} at {entry['operations_per_s'] / 1e9:.0f} G/s",
        )
        yield Line(
            f"peak memory, {entry['precision']}",
            f"{entry['ours_peak_mib']:.0f} MiB",
            f"{entry['reference_peak_mib']:.0f} MiB",
            times(entry["reference_peak_mib"] / entry["ours_peak_mib"]),
            "",
        )
        if entry["precision"] == "bfloat16":
            yield Line(
                "step, bfloat16, reference in bfloat16 too",
                seconds(entry["ours_s"]),
                seconds(entry["reference_s"]),
                times(entry["ratio"]),
                "",
            )
    if len(result["entries"]) == 1:
        yield Line("step, bfloat16", "not measured", "", "", "this device has no bfloat16")


def epochs(result: Result) -> Iterator[Line]:
    """An epoch over the same volumes."""
    for entry in result["entries"]:
        which = "" if entry["epochs"] == "every" else f" {entry['epochs']}"
        yield Line(
            f"epoch{which}, {entry['method']}, {entry['precision']}, {entry['ours_slices']} slices",
            seconds(entry["ours_s"]),
            seconds(entry["reference_s"]),
            times(entry["ratio"]),
            f"{seconds(entry['lower_bound_s'])}: {entry['operations'] / 1e9:.0f} G operations",
        )


def evaluations(result: Result) -> Iterator[Line]:
    """Prediction of a volume."""
    for entry in result["entries"]:
        yield Line(
            f"evaluation, {entry['precision']}, {result['slices']} slices; {entry['differing']:.1e} of voxels differ",
            seconds(entry["ours_s"]),
            seconds(entry["reference_s"]),
            times(entry["ratio"]),
            f"{seconds(entry['lower_bound_s'])}: {result['operations'] / 1e9:.0f} G operations",
        )


def aggregations(result: Result) -> Iterator[Line]:
    """The average of the products alone."""
    entry = result["entries"][-1]
    yield Line(
        f"average of {result['sites']} sites, {entry['modules']} modules",
        seconds(entry["ours_s"]),
        seconds(entry["reference_s"]),
        times(entry["reference_s"] / entry["ours_s"]),
        "",
    )


def rivals(result: Result) -> Iterator[Line]:
    """The same average as others publish it."""
    entries = result["entries"]
    for way, title in (("hlora", "HLoRA"), ("dense_randomised", "a randomised SVD"), ("dense_full", "a full SVD")):
        mine, other = entries["ours"], entries[way]
        yield Line(
            f"factors of {result['sites']} sites, against {title}",
            seconds(mine["seconds"]),
            seconds(other["seconds"]),
            times(other["seconds"] / mine["seconds"]),
            "",
        )
        for what, key, text in (
            ("memory above the inputs", "rise_mb", lambda entry: f"{entry['rise_mb']:.0f} MB"),
            ("largest distance to the best", "", lambda entry: f"{entry['independent']['distance_max']:.1e}"),
        ):
            ratio = times(other[key] / mine[key]) if key and mine[key] else ""
            yield Line(f"its {what}, against {title}", text(mine), text(other), ratio, "")


def server_rounds(result: Result) -> Iterator[Line]:
    """The server's round from bytes to files."""
    ours, lower_bound = result["ours"], result["lower_bound"]
    for way, precision in (("reference64", "float64"), ("reference32", "float32")):
        reference = result[way]
        yield Line(
            f"server round of {result['sites']} sites, against {precision}",
            seconds(ours["seconds"]),
            seconds(reference["seconds"]),
            times(reference["ratio"]),
            f"{seconds(lower_bound['seconds'])}: {lower_bound['bytes'] / 1e6:.0f} MB copied, "
            f"{lower_bound['operations'] / 1e9:.1f} G operations",
        )
        yield Line(
            f"its memory, against {precision}",
            f"{ours['peak_mb']:.0f} MB",
            f"{reference['peak_mb']:.0f} MB",
            times(reference["peak_mb"] / ours["peak_mb"]),
            "",
        )


def traffics(result: Result) -> Iterator[Line]:
    """Bytes of a round and site on the wire."""
    entries = result["entries"]
    for entry in entries:
        full = next((other for other in entries if other["entry"] == f"full_ft-float32-{entry['classes']}"), entry)
        if entry is not full:
            for way in ("down", "up"):
                yield Line(
                    f"{'upload' if way == 'up' else 'download'}, {entry['entry']}",
                    megabytes(entry[way]),
                    megabytes(full[way]),
                    times(full[way] / entry[way]),
                    f"{megabytes(entry['values'])}: values and scales",
                )


def rounds(result: Result) -> Iterator[Line]:
    """What FLARE adds."""
    ours, reference = result["ours"], result["reference"]
    names = {
        "round": "a round of FLARE, free training",
        "all": f"a job of {result['rounds']} such rounds",
        "server": "- until the server begins",
        "sites": "- until a site begins",
        "first": "- first round",
        "validation": "- last validation",
        "shutdown": "- shutdown",
    }
    for key, name in names.items():
        lower_bound = f"{seconds(result['lower_bound'])}: four small files, flushed" if key == "round" else ""
        yield Line(name, seconds(ours[key]), seconds(reference[key]), times(reference[key] / ours[key]), lower_bound)


BENCHMARKS: dict[str, Callable[[Result], Iterator[Line]]] = {
    "traffic": traffics,
    "aggregation": aggregations,
    "rivals": rivals,
    "server_round": server_rounds,
    "step": steps,
    "round": rounds,
    "evaluation": evaluations,
    "epoch": epochs,
}


def seconds(value: float) -> str:
    """Three digits."""
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def megabytes(value: float) -> str:
    """Millions of bytes."""
    return f"{value / 1e6:.2f} MB"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f}x" if value < 10 else f"{value:.1f}x"


def commands(threads: int) -> dict[str, list[str]]:
    """Name of a result -> what makes it; those of a GPU only where there is one."""
    found = {name: [f"bench_{name}.py"] for name in BENCHMARKS}
    for name in ("aggregation", "rivals", "server_round", "step", "evaluation", "epoch"):
        found[name] += ["--threads", str(threads)]
    if torch.cuda.is_available():
        found |= {
            f"step-cuda-{size}": ["bench_step.py", "--device", "cuda:0", "--image-size", str(size), "--batch", batch]
            for size, batch in ((224, "16"), (1024, "1"))
        }
    return found


def table(results: dict[str, Result]) -> str:
    """All results as one Markdown table."""
    known = [result for result in results.values() if "instructions" in result]
    lines = [
        *(f"{r['cpu']} ({r['instructions']}), {r['threads']} threads, torch {r['torch']}" for r in known[:1]),
        "",
        "| what | ours | reference implementation | ratio | lower bound |",
        "|---|---:|---:|---:|---|",
    ]
    for name, result in results.items():
        lines += [f"| {' | '.join(line)} |" for line in BENCHMARKS[name.partition("-")[0]](result)]
    if not any(name.startswith("step-cuda") for name in results):
        lines.append("| step on a GPU, 224 and 1024 px | not measured | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, collect, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of results (default runs/bench)")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="run these alone; none: only print")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads (default: torch's)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    known = commands(arguments.threads)
    chosen = list(known) if arguments.only is None else arguments.only
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    start = time.monotonic()
    for number, name in enumerate(chosen, 1):
        print(f"\n{number} of {len(chosen)}: {name} ({(time.monotonic() - start) / 60:.0f} min so far)", flush=True)
        script, *options = known[name]
        file = arguments.out / f"{name}.json"
        subprocess.run([sys.executable, str(HERE / script), *options, "--json", str(file)], check=True)
    files = {name: arguments.out / f"{name}.json" for name in known}
    results = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    (arguments.out / "bench.json").write_text(json.dumps(results, indent=2) + "\n")
    (arguments.out / "table.md").write_text(table(results))
    print("\n" + table(results))


if __name__ == "__main__":
    main()

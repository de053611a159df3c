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
    plain: str
    ratio: str
    floor: str


def steps(result: Result) -> Iterator[Line]:
    """Time and memory of a training step."""
    for row in result["rows"]:
        what = f"step, {row['precision']}, {result['side']} px, {result['slices']} slices"
        against, products = row["against_plain_float32"], f"{result['operations'] / 1e9:.0f} G operations"
        yield Line(
            what,
            seconds(row["ours_s"]),
            seconds(against["plain_s"]),
            times(against["ratio"]),
            f"{seconds(row['floor_s'])}: {products} at {row['operations_per_s'] / 1e9:.0f} G/s",
        )
        yield Line(
            f"peak memory, {row['precision']}",
            f"{row['ours_peak_mib']:.0f} MiB",
            f"{row['plain_peak_mib']:.0f} MiB",
            times(row["plain_peak_mib"] / row["ours_peak_mib"]),
            "",
        )
        if row["precision"] == "bfloat16":
            yield Line(
                "step, bfloat16, plain in bfloat16 too",
                seconds(row["ours_s"]),
                seconds(row["plain_s"]),
                times(row["ratio"]),
                "",
            )
    if len(result["rows"]) == 1:
        yield Line("step, bfloat16", "not measured", "", "", "this device has no bfloat16")


def epochs(result: Result) -> Iterator[Line]:
    """An epoch over the same volumes."""
    for row in result["rows"]:
        which = "" if row["epochs"] == "every" else f" {row['epochs']}"
        yield Line(
            f"epoch{which}, {row['method']}, {row['precision']}, {row['ours_slices']} slices",
            seconds(row["ours_s"]),
            seconds(row["plain_s"]),
            times(row["ratio"]),
            f"{seconds(row['floor_s'])}: {row['operations'] / 1e9:.0f} G operations",
        )


def evaluations(result: Result) -> Iterator[Line]:
    """Prediction of a volume."""
    for row in result["rows"]:
        yield Line(
            f"evaluation, {row['precision']}, {result['slices']} slices; {row['differing']:.1e} of the voxels differ",
            seconds(row["ours_s"]),
            seconds(row["plain_s"]),
            times(row["ratio"]),
            f"{seconds(row['floor_s'])}: {result['operations'] / 1e9:.0f} G operations",
        )


def aggregations(result: Result) -> Iterator[Line]:
    """The average of the products alone."""
    row = result["rows"][-1]
    yield Line(
        f"average of {result['sites']} sites, {row['modules']} modules",
        seconds(row["ours_s"]),
        seconds(row["plain_s"]),
        times(row["plain_s"] / row["ours_s"]),
        "",
    )


def server_rounds(result: Result) -> Iterator[Line]:
    """The server's round from bytes to files."""
    ours, floor = result["ours"], result["floor"]
    for way, precision in (("plain64", "float64"), ("plain32", "float32")):
        plain = result[way]
        yield Line(
            f"server round of {result['sites']} sites, against {precision}",
            seconds(ours["seconds"]),
            seconds(plain["seconds"]),
            times(plain["ratio"]),
            f"{seconds(floor['seconds'])}: {floor['bytes'] / 1e6:.0f} MB copied, {floor['operations'] / 1e9:.1f} G "
            "operations",
        )
        yield Line(
            f"its memory, against {precision}",
            f"{ours['peak_mb']:.0f} MB",
            f"{plain['peak_mb']:.0f} MB",
            times(plain["peak_mb"] / ours["peak_mb"]),
            "",
        )


def traffics(result: Result) -> Iterator[Line]:
    """Bytes of a round and site on the wire."""
    rows = result["rows"]
    for row in rows:
        full = next((other for other in rows if other["row"] == f"full_ft-float32-{row['classes']}"), row)
        if row is not full:
            for way in ("down", "up"):
                yield Line(
                    f"{'upload' if way == 'up' else 'download'}, {row['row']}",
                    megabytes(row[way]),
                    megabytes(full[way]),
                    times(full[way] / row[way]),
                    f"{megabytes(row['values'])}: values and scales",
                )


def rounds(result: Result) -> Iterator[Line]:
    """What FLARE adds."""
    ours, plain = result["ours"], result["plain"]
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
        floor = f"{seconds(result['floor'])}: four small files, flushed" if key == "round" else ""
        yield Line(name, seconds(ours[key]), seconds(plain[key]), times(plain[key] / ours[key]), floor)


BENCHMARKS: dict[str, Callable[[Result], Iterator[Line]]] = {
    "traffic": traffics,
    "aggregation": aggregations,
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
    for name in ("aggregation", "server_round", "step", "evaluation", "epoch"):
        found[name] += ["--threads", str(threads)]
    if torch.cuda.is_available():
        found |= {
            f"step-cuda-{side}": ["bench_step.py", "--device", "cuda:0", "--side", str(side), "--batch", batch]
            for side, batch in ((224, "16"), (1024, "1"))
        }
    return found


def table(results: dict[str, Result]) -> str:
    """All results as one Markdown table."""
    known = [result for result in results.values() if "instructions" in result]
    lines = [
        *(f"{r['cpu']} ({r['instructions']}), {r['threads']} threads, torch {r['torch']}" for r in known[:1]),
        "",
        "| what | ours | the plain way | ratio | floor |",
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

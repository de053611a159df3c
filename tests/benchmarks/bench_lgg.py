"""Every method in every setting on real tumours of four institutions, from the synthetic backbone.

    python tests/benchmarks/bench_lgg.py --source DIR --out runs/lgg      (make bench-lgg LGG=DIR)

``DIR`` holds <site>/<case>/{flair,mask}.nii.gz and manifest.csv with the columns site and case (TCGA-LGG, reduced in
size). Everything rests on three folds: a third of each site's patients is tested, the rest trains, so that three seeds
together test every patient once. The five main methods run on all folds, the others on the first one. Every method's
step size is chosen before, on the training patients of the first fold alone: two thirds of them train, one third is
scored, all sites pooled. What has finished is kept, so the benchmark can be stopped and started again. Nothing is
asserted: the tables are the result.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from fedpeft.data.datalist import DATALIST, pool, read_sites
from fedpeft.data.folder import Tree, prepare_folder
from fedpeft.model.checkpoint import shipped
from fedpeft.spec.methods import METHODS
from fedpeft.spec.run import Run
from fedpeft.study.bootstrap import paired_difference
from fedpeft.train.alone import train_alone
from fedpeft.train.evaluate import mean_dice, score
from fedpeft.train.files import read_json, write_json
from fedpeft.train.site import read_volumes

FOLDS = 3
MAIN = ("flap_sam", "lora_dec_ft", "full_ft", "pdec_ft", "ma_sam")
OTHERS = tuple(name for name, row in METHODS.items() if row.task == "segmentation" and name not in MAIN)
# Multiples of a row's own step size.
FACTORS = (0.4, 1.0, 2.5)
RECIPE = {"rounds": 20, "local_epochs": 0.15, "batch": 2}
TUNING = RECIPE | {"rounds": 10}


def split(source: Path, fold: int) -> dict[tuple[str, str], str]:
    """(site, case) -> "train" or "test"; a patient of several scans would be of one split, here each has one."""
    with (source / "manifest.csv").open() as stream:
        sites: dict[str, list[str]] = {}
        for row in csv.DictReader(stream):
            sites.setdefault(row["site"], []).append(row["case"])
    found = {}
    for number, (site, cases) in enumerate(sorted(sites.items())):
        order = np.random.default_rng((0, number)).permutation(sorted(cases))
        found |= {(site, str(case)): "test" if index % FOLDS == fold else "train" for index, case in enumerate(order)}
    return found


def prepare(source: Path, out: Path, splits: dict[tuple[str, str], str]) -> Path:
    """A folder of sites with these splits, each volume normalised by itself: one dark scan must not shift a site."""
    if out.exists():
        return out
    table = out.with_suffix(".csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{site},{case},{value}" for (site, case), value in sorted(splits.items())]
    table.write_text("\n".join(["site,case,split", *lines, ""]))
    draft = out.with_name(f"{out.name}.draft")
    prepare_folder(Tree(source, "flair.nii.gz", "mask.nii.gz", table), draft)
    for file in draft.glob(f"*/{DATALIST}"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"statistics": None}, indent=1))
    draft.rename(out)
    return out


@dataclass(frozen=True)
class Try:
    """One step size of one method on the tuning folder."""

    method: str
    rate: float
    data: Path
    out: Path

    @property
    def file(self) -> Path:
        """Where the result is kept."""
        return self.out / f"{self.method}-{self.rate:.2e}.json"


def tries(methods: tuple[str, ...], data: Path, out: Path) -> Iterator[Try]:
    """All step sizes of some methods."""
    for name in methods:
        rate = Run(name, "folder", "sam_tiny").learning_rate
        yield from (Try(name, factor * rate, data, out) for factor in FACTORS)


def attempt(item: Try) -> None:
    """Train pooled, score the tuning cases, keep the result."""
    if item.file.exists():
        return
    torch.set_num_threads(1)
    sites = read_sites(item.data)
    run = Run(item.method, "folder", "sam_tiny", labels=("target",), learning_rate=item.rate, **TUNING)
    checkpoint, folder = shipped(run.backbone_row), item.out / item.file.stem
    shutil.rmtree(folder, ignore_errors=True)
    try:
        made = train_alone(run, pool(sites), checkpoint, folder, "centralized", lambda record: None)
    except ValueError as fault:
        write_json(item.file, {"dice": 0.0, "fault": str(fault)})
        return
    model = made.model(checkpoint)
    values = [
        mean_dice(score(model, read_volumes(site, "test", made.preprocessing), run, site.labels, (site.name, "test")))
        for site in sites
    ]
    write_json(item.file, {"dice": float(np.mean(values)), "sites": values})


def tune(methods: tuple[str, ...], source: Path, out: Path, workers: int) -> dict[str, float]:
    """Method -> step size, chosen on the training patients of the first fold."""
    inner = {key: value for key, value in split(source, 0).items() if value == "train"}
    for number, site in enumerate(sorted({site for site, _ in inner})):
        cases = [case for name, case in inner if name == site]
        for index, case in enumerate(np.random.default_rng((1, number)).permutation(sorted(cases))):
            inner[site, str(case)] = "test" if index % FOLDS == 0 else "train"
    subset = out / "source"
    for site, case in inner:
        (subset / site).mkdir(parents=True, exist_ok=True)
        link = subset / site / case
        if not link.exists():
            link.symlink_to((source / site / case).absolute())
    items = list(tries(methods, prepare(subset, out / "data", inner), out))
    started = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        for number, _ in enumerate(executor.map(attempt, items), start=1):
            print(f"step sizes {number}/{len(items)} | {time.monotonic() - started:.0f} s", flush=True)
    best: dict[str, tuple[float, float]] = {}
    for item in items:
        best[item.method] = max(best.get(item.method, (-1.0, 0.0)), (read_json(item.file)["dice"], item.rate))
    return {name: rate for name, (_, rate) in best.items()}


def compare(data: Path, out: Path, methods: tuple[str, ...], seed: int, rates: dict[str, float]) -> None:
    """``fedpeft compare`` of some methods on one fold."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in RECIPE.items()]
    chosen = ",".join(f"{name}={rates[name]:.6g}" for name in methods)
    subprocess.run([
        sys.executable, "-m", "fedpeft.cli.main", "compare", "--data", str(data), "--methods", ",".join(methods),
        "--settings", "local,federated,centralized", "--seed", str(seed), "--learning-rate", chosen, *options,
        "--out", str(out),
    ], check=True)


def columns(files: list[Path]) -> dict[str, dict[str, dict[tuple[str, str], float]]]:
    """Method -> column -> (site, case) -> Dice, of one or several folds."""
    found: dict[str, dict[str, dict[tuple[str, str], list[float]]]] = {}
    for file in files:
        with file.open() as stream:
            for row in csv.DictReader(stream):
                names = [row["setting"]]
                if row["setting"] == "local":
                    names = ["everywhere"] + ["local"] * (row["trained_at"] == row["site"])
                for name in names:
                    cell = found.setdefault(row["method"], {}).setdefault(name, {})
                    cell.setdefault((row["site"], row["case"]), []).append(float(row["dice"]))
    return {
        method: {name: {key: fmean(values) for key, values in cell.items()} for name, cell in cells.items()}
        for method, cells in found.items()
    }


def average(cell: dict[tuple[str, str], float]) -> float:
    """The mean over sites of the mean over their patients."""
    sites: dict[str, list[float]] = {}
    for (site, _), value in cell.items():
        sites.setdefault(site, []).append(value)
    return fmean(map(fmean, sites.values()))


def table(found: dict[str, dict[str, dict[tuple[str, str], float]]], rates: dict[str, float]) -> str:
    """One row a method: its Averages, the gain over local training, the share of centralized training."""
    lines = [
        "| method | step size | initial | local | local, every site | federated | centralized | federated - local "
        "| federated - local, every site | federated / centralized | federated - FLAP-SAM |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for method, cells in found.items():
        means = {name: average(cell) for name, cell in cells.items()}
        values = [f"{means[name]:.3f}" for name in ("initial", "local", "everywhere", "federated", "centralized")]
        gains = [interval(cells["federated"], cells[name]) for name in ("local", "everywhere")]
        other = found["flap_sam"]["federated"] if "flap_sam" in found else {}
        beside = interval(cells["federated"], other) if method != "flap_sam" and other else ""
        ratio = f"{means['federated'] / means['centralized']:.3f}"
        lines.append(f"| `{method}` | {rates[method]:.2g} | {' | '.join([*values, *gains, ratio, beside])} |")
    return "\n".join(lines)


def interval(first: dict[tuple[str, str], float], second: dict[tuple[str, str], float]) -> str:
    """Mean difference with its 95 % interval over patients."""
    found = paired_difference(first, {key: second[key] for key in first})
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def per_site(found: dict[str, dict[str, dict[tuple[str, str], float]]]) -> str:
    """Each method's Dice at each site, by setting."""
    sites = sorted({site for cells in found.values() for cell in cells.values() for site, _ in cell})
    lines = [f"| method | setting | {' | '.join(sites)} |", f"|---|---|{'---:|' * len(sites)}"]
    for method, cells in found.items():
        for name in ("local", "federated", "centralized"):
            values = [fmean(value for (place, _), value in cells[name].items() if place == site) for site in sites]
            lines.append(f"| `{method}` | {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines)


def read(out: Path, rates: dict[str, float]) -> str:
    """The tables of all folds and of the first one."""
    main = columns([out / f"fold-{fold}" / "compare" / "cases.csv" for fold in range(FOLDS)])
    first = columns([out / "fold-0" / name / "cases.csv" for name in ("compare", "others")])
    cases = [len(found["flap_sam"]["federated"]) for found in (main, first)]
    return (
        f"All folds, {cases[0]} patients:\n\n{table(main, rates)}\n\n{per_site(main)}\n\n"
        f"First fold alone, {cases[1]} patients:\n\n{table(first, rates)}\n"
    )


def main() -> None:
    """Tune, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time while step sizes are chosen")
    args = parser.parse_args()
    folds = [prepare(args.source, args.out / f"fold-{k}" / "data", split(args.source, k)) for k in range(FOLDS)]
    rates = tune(MAIN, args.source, args.out / "tune", args.workers)
    for fold, data in enumerate(folds):
        compare(data, data.with_name("compare"), MAIN, fold, rates)
    rates |= tune(OTHERS, args.source, args.out / "tune", args.workers)
    compare(folds[0], folds[0].with_name("others"), OTHERS, 0, rates)
    text = read(args.out, rates)
    (args.out / "tables.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

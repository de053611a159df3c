"""Every method in every setting on real tumours of four institutions, from the synthetic backbone.

    python tests/experiments/bench_lgg.py --source DIR --out runs/lgg [--methods A,B] [--seeds 0,1,2]

``DIR`` holds <site>/<case>/{flair,mask}.nii.gz and manifest.csv with the columns site and case (TCGA-LGG, reduced in
size). Half of each site's patients train, half are tested. Every method's learning rate, the same in all settings, is
chosen before, on the training patients alone: two thirds of them train a federation (in this process, as many rounds as
later), one third is scored. Then ``fedpeft compare`` does the rest and writes the tables. What has finished is kept, so
the benchmark can be stopped and started again. Nothing is asserted: the tables are the result.
"""

import argparse
import csv
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
from in_process import federate

from fedpeft.common.files import read_json, write_json
from fedpeft.config.datasets import DATASETS
from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_sites
from fedpeft.data.prepare.pipeline import prepare as write_sites
from fedpeft.data.sources.folder import Tree, find_folder
from fedpeft.data.table import Columns
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import mean_score

MAIN = "flap_sam,lora_dec_ft,full_ft,pdec_ft,ma_sam"
# Multiples of a method's own learning rate.
FACTORS = (0.4, 1.0, 2.5)
RECIPE = {"rounds": 20, "local_epochs": 0.15, "batch": 2}

Split = dict[tuple[str, str], str]


def halves(source: Path) -> Split:
    """(site, case) -> "train" or "test"; each case is a patient."""
    with (source / "manifest.csv").open() as stream:
        return sampled([(line["site"], line["case"]) for line in csv.DictReader(stream)], every=2, seed=0)


def sampled(cases: list[tuple[str, str]], every: int, seed: int) -> Split:
    """One of ``every`` cases of each site is tested, the others train."""
    found: Split = {}
    for number, site in enumerate(sorted({site for site, _ in cases})):
        mine = sorted(case for place, case in cases if place == site)
        for index, case in enumerate(np.random.default_rng((seed, number)).permutation(mine)):
            found[site, str(case)] = "test" if index % every == 0 else "train"
    return found


def prepare(source: Path, out: Path, splits: Split) -> Path:
    """A folder of sites with these splits; cases without one are left out."""
    if out.exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    table = out.with_suffix(".csv")
    on_disk = sorted((file.parent.parent.name, file.parent.name) for file in source.glob("*/*/flair.nii.gz"))
    lines = [f"{site},{case},{splits.get((site, case), 'none')}" for site, case in on_disk]
    table.write_text("\n".join(["site,case,split", *lines, ""]))
    write_sites(find_folder(Tree(source, "flair.nii.gz", "mask.nii.gz", table, Columns(ignore=("none",)))), out)
    return out


@dataclass(frozen=True)
class Try:
    """One learning rate of one method on the tuning folder."""

    method: str
    rate: float
    data: Path
    out: Path

    @property
    def file(self) -> Path:
        """Where the result is kept."""
        return self.out / f"{self.method}-{self.rate:.2e}.json"


def tries(methods: list[str], data: Path, out: Path) -> Iterator[Try]:
    """All learning rates of some methods."""
    for name in methods:
        rate = make_run(name, "folder", "sam_tiny").training.learning_rate
        yield from (Try(name, factor * rate, data, out) for factor in FACTORS)


def attempt(item: Try) -> None:
    """Train a federation, score the held-out training patients, keep the result."""
    if item.file.exists():
        return
    torch.set_num_threads(1)
    sites = read_sites(item.data)
    run = make_run(item.method, "folder", "sam_tiny", labels=("target",), learning_rate=item.rate, **RECIPE)
    model = federate(run, sites, shipped(run.backbone), item.file.with_suffix(".state"))
    preprocessing = DATASETS[run.data.dataset].preprocessing
    values = [mean_score(task_of(run).score_site(model, site, "test", run, preprocessing)) for site in sites]
    write_json(item.file, {"dice": fmean(values), "sites": values})


def tune(methods: list[str], source: Path, splits: Split, out: Path, workers: int) -> dict[str, float]:
    """Method -> learning rate."""
    inner = sampled([key for key, value in splits.items() if value == "train"], every=3, seed=1)
    items = list(tries(methods, prepare(source, out / "data", inner), out))
    started = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        for number, _ in enumerate(executor.map(attempt, items), start=1):
            print(f"learning rates {number}/{len(items)} | {time.monotonic() - started:.0f} s", flush=True)
    best: dict[str, tuple[float, float]] = {}
    for item in items:
        best[item.method] = max(best.get(item.method, (-1.0, 0.0)), (read_json(item.file)["dice"], item.rate))
    return {name: rate for name, (_, rate) in best.items()}


def main() -> None:
    """Choose learning rates, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default=MAIN, help=f"default {MAIN}")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time while learning rates are chosen")
    args = parser.parse_args()
    splits = halves(args.source)
    rates = tune(args.methods.split(","), args.source, splits, args.out / "step_sizes", args.workers)
    command = [
        "compare",
        "--data",
        str(prepare(args.source, args.out / "data", splits)),
        "--methods",
        args.methods,
        "--seed",
        args.seeds,
        "--learning-rate",
        ",".join(f"{name}={rate:.3g}" for name, rate in rates.items()),
        *(f"--{name.replace('_', '-')}={value}" for name, value in RECIPE.items()),
        "--out",
        str(args.out / "compare"),
    ]
    print("fedpeft", *command, flush=True)
    subprocess.run([sys.executable, "-m", "fedpeft.cli.main", *command], check=True)


if __name__ == "__main__":
    main()

"""What each order of magnitude in exchanged parameters costs, on real skin lesions of three centres.

    python tests/benchmarks/bench_ham10000.py --source DIR --out runs/ham10000 [--methods A,B] [--seeds 0,1]

``DIR`` holds HAM10000's pictures and manifest.csv with the columns image, dx, center and lesion_id. Centre 1 pretrains
the medical model without labels (``fedpeft.train.pretrain.self_supervised``) and is left out of all that follows.

1. Every method's step size is chosen on the validation pictures, by federations in this process from the generic model.
2. ``fedpeft compare`` federates every method from a random, the generic and the medical model, the pictures lying where
   they were taken (natural) or dealt out at random (iid); from the generic one, with the first seed, it also trains
   locally and centrally (``--settings federated`` leaves that out).
3. Leaving one centre out, the others federate, and the model is tested on all pictures of the centre it has never seen.

A seed determines splits, partitions and runs. What has finished is kept, so the benchmark can be stopped and started
again, and the tables are written anew after every part (``ham10000_table``). Nothing is asserted: they are the result.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ham10000_splits as splits
from ham10000_clock import Clock
from ham10000_numbers import Cell
from ham10000_step_sizes import choose
from ham10000_table import write_tables

from fedpeft.data.datalist import SPLITS
from fedpeft.data.picture_writing import Picture, write_pictures
from fedpeft.model.checkpoint import shipped
from fedpeft.model.parcel import exchanged
from fedpeft.spec.run import SETTINGS, Run
from fedpeft.study.evaluation import evaluate
from fedpeft.train.files import read_json, write_json
from fedpeft.train.pretrain import self_supervised
from fedpeft.train.run_folder import GLOBAL, find_run
from fedpeft.train.scores import CaseScore

MAIN = "linear_probe,vpt_shallow,dvpt,vpt_deep,lora,lora_vpt,sba,full_ft"
LEFT_OUT = "linear_probe,dvpt,lora,lora_vpt,sba,full_ft"
STARTS = ("random", "generic", "medical")
OUTSIDE = "left out"
FEDERATED = "federated"


@dataclass(frozen=True)
class Comparison:
    """One call of ``fedpeft compare``.

    Attributes:
        partition: "natural", "iid", or the centre that is left out.
        start: of ``STARTS``.
        seed: of splits and runs.
        methods: rows.
        settings: of ``fedpeft compare``.
    """

    partition: str
    start: str
    seed: int
    methods: tuple[str, ...]
    settings: tuple[str, ...] = (FEDERATED,)


class Bench:
    """The benchmark's folders, and what is done in them.

    Args:
        args: of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out
        self.all, self.names = splits.read_manifest(args.source)
        self.pictures, self.labels = splits.evaluated(self.all, self.names)
        self.recipe = {"rounds": args.rounds, "local_epochs": args.local_epochs, "batch": args.batch}
        self.medical = args.out / f"medical-from-{args.medical_from}.safetensors"
        self.rates: dict[str, float] = {}

    def run(self, method: str, seed: int) -> Run:
        """A run of the benchmark but for its start and step size."""
        return Run(
            method, "images", "vit_tiny", classes=len(self.labels), labels=tuple(self.labels), seed=seed, **self.recipe
        )

    def checkpoint(self, start: str) -> Path | None:
        """The weights that a start stands for."""
        generic = shipped(self.run("lora", 0).backbone_row)
        return {"random": None, "generic": generic, "medical": self.medical}[start]

    def pretrain(self) -> None:
        """Make the medical model, once."""
        if not self.medical.with_suffix(".json").exists():
            data = self._folder("pretraining", splits.pretraining(self.all), self.names)
            words = ["--data", str(data), "--site", splits.PRETRAINING, "--out", str(self.medical)]
            self_supervised.main([*words, "--start", self.args.medical_from, "--steps", str(self.args.medical_steps)])

    def tune(self) -> None:
        """Choose every method's step size on the first seed's natural partition, from the generic model."""
        seed, methods = self.args.seeds[0], list(dict.fromkeys(self.args.methods + self.args.left_out_methods))
        data = self.data("natural", seed)
        self.rates = choose(self.run(methods[0], seed), methods, data, self.out / "step_sizes", self.args.workers)

    def data(self, partition: str, seed: int) -> Path:
        """The folder of a partition's sites; of a centre that is left out, of the others."""
        drawn, name = splits.natural(self.pictures, seed), f"seed-{seed}/{partition}"
        if partition in splits.PARTITIONS:
            return self._folder(name, splits.PARTITIONS[partition](drawn, seed), self.labels)
        return self._folder(name, splits.left_out(drawn, partition)[0], self.labels)

    def compare(self, item: Comparison) -> Path:
        """Call ``fedpeft compare``; returns its folder."""
        out = self.out / "compare" / f"seed-{item.seed}" / item.partition / item.start
        weights = ["--checkpoint", str(self.medical)] if item.start == "medical" else []
        rates = ",".join(f"{name}={self.rates[name]:.3g}" for name in item.methods)
        command = [
            "compare", "--data", str(self.data(item.partition, item.seed)), "--methods", ",".join(item.methods),
            "--settings", ",".join(item.settings), "--seed", str(item.seed), "--learning-rate", rates,
            "--backbone", "vit_tiny", "--initial", item.start, *weights,
            *(f"--{name.replace('_', '-')}={value}" for name, value in self.recipe.items()), "--out", str(out),
        ]
        print("fedpeft", *command, flush=True)
        subprocess.run([sys.executable, "-m", "fedpeft.cli.main", *command], check=True)
        return out

    def elsewhere(self, item: Comparison, method: str, compared: Path) -> list[CaseScore]:
        """A federation's scores on all pictures of the centre that took no part, computed once."""
        file = compared / f"{method}-{OUTSIDE.replace(' ', '-')}.json"
        if not file.exists():
            own = splits.left_out(splits.natural(self.pictures, item.seed), item.partition)[1]
            data = self._folder(f"seed-{item.seed}/{item.partition}-alone", own, self.labels)
            run = find_run(compared / method / f"seed-{item.seed}" / FEDERATED)
            found = [evaluate(run, data, split, self.checkpoint(item.start), GLOBAL).scores for split in SPLITS]
            write_json(file, {"scores": [asdict(score) for part in found for score in part]})
        return _scores(file)

    def _folder(self, name: str, pictures: Sequence[Picture], labels: Sequence[str]) -> Path:
        """A folder of sites, made once."""
        out = self.out / "data" / name
        if not out.exists():
            write_pictures(pictures, labels, "images", out)
        return out


def comparisons(args: argparse.Namespace, centres: Sequence[str]) -> Iterator[Comparison]:
    """All calls of ``fedpeft compare``, the first seed's first."""
    for seed in dict.fromkeys(args.seeds + args.left_out_seeds):
        if seed in args.seeds:
            for start in STARTS:
                settings = tuple(args.settings) if start == "generic" and seed == args.seeds[0] else (FEDERATED,)
                for partition in splits.PARTITIONS:
                    yield Comparison(partition, start, seed, tuple(args.methods), settings)
        if seed in args.left_out_seeds:
            for start in args.left_out_starts:
                yield from (Comparison(centre, start, seed, tuple(args.left_out_methods)) for centre in centres)


def cells(bench: Bench, item: Comparison, compared: Path) -> Iterator[Cell]:
    """What a comparison brings to the tables."""
    inside = item.partition in splits.PARTITIONS
    for method in item.methods:
        for setting in item.settings:
            folder = compared / method / f"seed-{item.seed}" / setting
            if not inside:
                scores = bench.elsewhere(item, method, compared)
            elif setting == "local":
                found = {file.parent.name: _scores(file) for file in sorted(folder.glob("*/scores-test.json"))}
                scores = [score for site, part in found.items() for score in part if score.site == site]
            else:
                scores = _scores(folder / "scores-test.json")
            yield Cell(item.partition if inside else OUTSIDE, item.start, method, setting, item.seed, scores)


def joined(found: Sequence[Cell], centres: int) -> list[Cell]:
    """The cells, the left-out centres of one kind of model together in one, which is there when all of them are."""
    together: dict[tuple[object, ...], Cell] = {}
    for cell in found:
        key = (cell.partition, cell.start, cell.method, cell.setting, cell.seed)
        before = together[key].scores if key in together else []
        together[key] = Cell(*key, [*before, *cell.scores])
    done = {key for key, cell in together.items() if len({item.site for item in cell.scores}) == centres}
    return [cell for key, cell in together.items() if cell.partition != OUTSIDE or key in done]


def main() -> None:
    """Pretrain, choose step sizes, compare, write the tables."""
    bench = Bench(parse())
    args, centres = bench.args, sorted({item.site for item in bench.pictures})
    lesions = {item.case: item.group for item in bench.pictures}
    bench.pretrain()
    bench.tune()
    sizes = {name: exchanged(bench.run(name, 0)) for name in bench.rates}
    items = list(comparisons(args, centres))
    clock, found = Clock("comparisons", len(items)), []
    for item in items:
        found += cells(bench, item, bench.compare(item))
        write_tables(joined(found, len(centres)), sizes, lesions, bench.labels, bench.out)
        clock.tick(f"{item.partition}, {item.start}, seed {item.seed}")
    print((bench.out / "table.md").read_text())


def _scores(file: Path) -> list[CaseScore]:
    return [CaseScore(**item) for item in read_json(file)["scores"]]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def names(text: str) -> list[str]:
        return text.split(",")

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", type=names, default=names(MAIN), help=f"default {MAIN}")
    parser.add_argument("--left-out-methods", type=names, default=names(LEFT_OUT), help=f"default {LEFT_OUT}")
    parser.add_argument("--seeds", type=numbers, default=[0, 1], help="default 0,1")
    parser.add_argument("--left-out-seeds", type=numbers, default=[0], help="default 0")
    parser.add_argument("--left-out-starts", type=names, default=["generic", "medical"], help="default generic,medical")
    parser.add_argument(
        "--settings", type=names, default=list(SETTINGS), help="of the first seed from the generic model, default all"
    )
    parser.add_argument("--rounds", type=int, default=16, help="default %(default)s")
    parser.add_argument("--local-epochs", type=float, default=0.5, help="of a round, default %(default)s")
    parser.add_argument("--batch", type=int, default=8, help="default %(default)s")
    parser.add_argument("--medical-from", choices=self_supervised.STARTS, default="random", help="default %(default)s")
    parser.add_argument("--medical-steps", type=int, default=self_supervised.STEPS, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time while step sizes are chosen")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

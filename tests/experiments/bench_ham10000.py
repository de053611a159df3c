"""What each order of magnitude in exchanged parameters costs, on real skin lesions of three centres.

    python tests/experiments/bench_ham10000.py --source DIR --out runs/ham10000 [--methods A,B] [--seeds 0,1]

``DIR`` holds HAM10000's images and manifest.csv with the columns image, dx, center and lesion_id. Centre 1 pretrains
the medical models without labels (``pretrain.self_supervised``) and is left out of all that follows:
"medical" from random weights, "generic + medical" from the package's own.

1. Every method's learning rate is chosen on the validation images, from the generic model.
2. Every method federates from a random, the generic and the medical models, the images lying where they were taken
   (natural) or dealt out at random (iid).
3. Leaving one centre out, the others federate, and the model is tested on all images of the centre it has never seen.

All federations run in processes of their own without FLARE, two at a time; ``in_process`` computes what FLARE's
simulator computes, bit for bit. A seed determines splits, partitions and runs. What has finished is kept, so the
benchmark can be stopped and started again, and the tables are written anew after every part (``ham10000_table``).
Nothing is asserted: they are the result.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import ham10000_splits as splits
import torch
from ham10000_clock import Clock
from ham10000_learning_rates import choose
from ham10000_numbers import Experiment
from ham10000_table import write_tables
from in_process import federate

from fedpeft.common.files import read_json, write_json
from fedpeft.config.datasets import DATASETS
from fedpeft.config.run import Run, make_run
from fedpeft.data.datalist import SPLITS, read_sites
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.prepare.writer import write_folder
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.payload import exchanged
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import CaseScore
from pretrain import self_supervised

MAIN = "linear_probe,dvpt,vpt_deep,lora,sba,full_ft"
LEFT_OUT = "linear_probe,dvpt,lora,sba,full_ft"
RANDOM, GENERIC, MEDICAL, BOTH = "random", "generic", "medical", "generic + medical"
# The weights that each medical model starts from.
PRETRAINED = {MEDICAL: RANDOM, BOTH: GENERIC}
OUTSIDE = "left out"
FEDERATED = "federated"


@dataclass(frozen=True)
class Federation:
    """One model of the benchmark.

    Attributes:
        partition: "natural", "iid", or the centre that is left out.
        start: "random", "generic", "medical" or "generic + medical".
        seed: of splits and run.
        method: name of the method.
    """

    partition: str
    start: str
    seed: int
    method: str

    @property
    def part(self) -> tuple[str, str, int]:
        """What the tables are written after."""
        return self.partition, self.start, self.seed


@dataclass(frozen=True)
class Task:
    """A federation as a worker needs it: what to train on what, what to test on, where the scores go."""

    run: Run
    data: Path
    checkpoint: Path | None
    tested: Path
    splits: tuple[str, ...]
    file: Path


class Bench:
    """The benchmark's folders, and what is done in them.

    Args:
        args: of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out
        self.all, self.names = splits.read_manifest(args.source)
        self.images, self.labels = splits.evaluated(self.all, self.names)
        self.recipe = {"rounds": args.rounds, "local_epochs": args.local_epochs, "batch": args.batch}
        self.rates: dict[str, float] = {}

    def run(self, method: str, seed: int) -> Run:
        """A run of the benchmark but for its start and learning rate."""
        return make_run(
            method, "images", "vit_tiny", classes=len(self.labels), labels=tuple(self.labels), seed=seed, **self.recipe
        )

    def checkpoint(self, start: str) -> Path | None:
        """The weights that a start stands for."""
        if start in PRETRAINED:
            return self.out / f"medical-from-{PRETRAINED[start]}.safetensors"
        return shipped(self.run("lora", 0).backbone_row) if start == GENERIC else None

    def pretrain(self) -> None:
        """Make the medical models, once."""
        for start in PRETRAINED:
            if (file := self.checkpoint(start)).with_suffix(".json").exists():
                continue
            data = self._folder("pretraining", splits.pretraining(self.all), self.names)
            words = ["--data", str(data), "--site", splits.PRETRAINING, "--out", str(file)]
            self_supervised.main([*words, "--start", PRETRAINED[start], "--steps", str(self.args.medical_steps)])

    def tune(self) -> None:
        """Choose every method's learning rate on the first seed's natural partition, from the generic model."""
        seed, methods = self.args.seeds[0], list(dict.fromkeys(self.args.methods + self.args.left_out_methods))
        data = self.data("natural", seed)
        self.rates = choose(self.run(methods[0], seed), methods, data, self.out / "step_sizes", self.args.workers)

    def data(self, partition: str, seed: int) -> Path:
        """The folder of a partition's sites; of a centre that is left out, of the others."""
        split, name = splits.natural(self.images, seed), f"seed-{seed}/{partition}"
        if partition in splits.PARTITIONS:
            return self._folder(name, splits.PARTITIONS[partition](split, seed), self.labels)
        return self._folder(name, splits.left_out(split, partition)[0], self.labels)

    def task(self, item: Federation) -> Task:
        """A federation's task; its data are written."""
        data = tested = self.data(item.partition, item.seed)
        names: tuple[str, ...] = ("test",)
        if item.partition not in splits.PARTITIONS:
            own = splits.left_out(splits.natural(self.images, item.seed), item.partition)[1]
            tested, names = self._folder(f"seed-{item.seed}/{item.partition}-alone", own, self.labels), SPLITS
        start = MEDICAL if item.start in PRETRAINED else item.start
        run = self.run(item.method, item.seed).with_(initial=start, learning_rate=self.rates[item.method])
        folder = self.out / "federations" / f"seed-{item.seed}" / item.partition / item.start.replace(" ", "")
        return Task(run, data, self.checkpoint(item.start), tested, names, folder / f"{item.method}.json")

    def _folder(self, name: str, images: Sequence[FoundCase], labels: Sequence[str]) -> Path:
        """A folder of sites, made once."""
        out = self.out / "data" / name
        if not out.exists():
            write_folder(Found(self.args.source, "images", labels, images), out)
        return out


def train(task: Task) -> list[CaseScore]:
    """Train a federation and score what it is tested on, once."""
    if not task.file.exists():
        torch.set_num_threads(1)
        model = federate(task.run, read_sites(task.data), task.checkpoint, task.file.with_suffix(".state"))
        preprocessing = DATASETS[task.run.data.dataset].preprocessing
        sites, splits_ = read_sites(task.tested), task.splits
        found = [
            score
            for site in sites
            for split in splits_
            if site.splits[split]
            for score in task_of(task.run).score_site(model, site, split, task.run, preprocessing)
        ]
        write_json(task.file, {"scores": [asdict(score) for score in found]})
    return [CaseScore(**item) for item in read_json(task.file)["scores"]]


def federations(args: argparse.Namespace, centres: Sequence[str]) -> Iterator[Federation]:
    """All models, in the order in which a benchmark that is stopped early misses them least."""

    def inside(start: str, seed: int) -> Iterator[Federation]:
        for partition in splits.PARTITIONS:
            yield from (Federation(partition, start, seed, method) for method in args.methods)

    def outside(start: str) -> Iterator[Federation]:
        for seed in args.left_out_seeds:
            for centre in centres:
                yield from (Federation(centre, start, seed, method) for method in args.left_out_methods)

    for seed in args.seeds:
        for start in (RANDOM, GENERIC, MEDICAL):
            yield from inside(start, seed)
    yield from outside(GENERIC)
    for seed in args.seeds:
        yield from inside(BOTH, seed)
    yield from outside(MEDICAL)


def experiments(items: Iterable[Federation], scores: Iterable[list[CaseScore]]) -> list[Experiment]:
    """What federations bring to the tables."""
    return [
        Experiment(
            item.partition if item.partition in splits.PARTITIONS else OUTSIDE,
            item.start,
            item.method,
            FEDERATED,
            item.seed,
            found,
        )
        for item, found in zip(items, scores, strict=True)
    ]


def joined(found: Sequence[Experiment], centres: int) -> list[Experiment]:
    """The experiments; the left-out centres of one kind of model become one, if all of them are there."""
    together: dict[tuple[object, ...], Experiment] = {}
    for experiment in found:
        key = (experiment.partition, experiment.start, experiment.method, experiment.setting, experiment.seed)
        before = together[key].scores if key in together else []
        together[key] = Experiment(*key, [*before, *experiment.scores])
    done = {key for key, experiment in together.items() if len({item.site for item in experiment.scores}) == centres}
    return [experiment for key, experiment in together.items() if experiment.partition != OUTSIDE or key in done]


def main() -> None:
    """Pretrain, choose learning rates, federate, write the tables."""
    bench = Bench(parse())
    args, centres = bench.args, sorted({item.site for item in bench.images})
    lesions = {item.case: item.group for item in bench.images}
    bench.pretrain()
    bench.tune()
    sizes = {name: exchanged(bench.run(name, 0)) for name in bench.rates}
    items = list(federations(args, centres))
    clock, found = Clock("federations", len(items)), []
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as executor:
        scores = executor.map(train, [bench.task(item) for item in items])
        for _, part in groupby(items, lambda item: item.part):
            for item in part:
                found += experiments([item], [next(scores)])
                clock.tick(f"{item.method}, {item.partition}, {item.start}, seed {item.seed}")
            write_tables(joined(found, len(centres)), sizes, lesions, bench.labels, bench.out)
    print((bench.out / "table.md").read_text())


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
    parser.add_argument("--rounds", type=int, default=16, help="default %(default)s")
    parser.add_argument("--local-epochs", type=float, default=0.5, help="of a round, default %(default)s")
    parser.add_argument("--batch", type=int, default=8, help="default %(default)s")
    parser.add_argument("--medical-steps", type=int, default=self_supervised.STEPS, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="federations at a time, default %(default)s")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

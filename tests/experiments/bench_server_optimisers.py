"""Server optimisers on the synthetic hospitals of the demo: mean test Dice at home of the last federated model.

    python tests/experiments/bench_server_optimisers.py --data data/phantom [--optimisers average,nesterov]

The demo's job otherwise, in this process on one thread. It prints a line for each run and keeps nothing. A name may be
followed by fields of the run: ``adam:server_learning_rate=0.003``. Nothing is asserted: the table is the result.
"""

import argparse
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import torch

from fedpeft.config.jobs import JOBS
from fedpeft.data.datalist import read_sites
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.study.apply.evaluation import Evaluation, evaluate
from fedpeft.tasks.scores import mean_score
from fedpeft.training.server.in_process import train_in_process
from fedpeft.training.server.run_folder import GLOBAL


def dice(data: Path, seed: int, optimiser: str, rounds: int) -> dict[str, list[float]]:
    """The mean Dice of each site, on validation and on test cases."""
    name, *fields = optimiser.split(":")
    more = {key: float(value) for key, value in (field.split("=") for field in fields)}
    changed = JOBS["flap_sam_phantom"].run.with_(server_optimiser=name, seed=seed, rounds=rounds, **more)
    run = changed.resolve()
    checkpoint = shipped(run.backbone)
    with TemporaryDirectory() as folder:
        trained = train_in_process(run, read_sites(data), checkpoint, Path(folder) / "run", "federated")
        found = {split: evaluate(trained, data, split, checkpoint, GLOBAL) for split in ("validation", "test")}
    return {split: [mean_score(each.of(site)) for site in sites_of(each)] for split, each in found.items()}


def sites_of(found: Evaluation) -> list[str]:
    """The names of the sites, in their order."""
    return list(dict.fromkeys(item.site for item in found.scores))


def main() -> None:
    """Train and score every optimiser with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--optimisers", default="average,momentum,nesterov", help="comma-separated, with their fields")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in map(int, args.seeds.split(",")):
        for optimiser in args.optimisers.split(","):
            values = dice(args.data, seed, optimiser, args.rounds)
            sites = ", ".join(f"{value:.3f}" for value in values["test"])
            means = {split: f"{fmean(of_sites):.3f}" for split, of_sites in values.items()}
            print(
                f"seed {seed} | {optimiser} | validation {means['validation']} | test {means['test']} ({sites})",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What each training recipe is worth on real tumours of four institutions.

    python tests/experiments/bench_recipes.py --source DIR --out runs/recipes [--recipes A,B] [--share 0.01]

``DIR`` and the split of its patients are those of ``bench_lgg.py``. The recipe ``efficient`` runs as it is. The recipes
of published code would take days here: they run for a share of their epochs, in as many rounds as ``efficient``, with
warm-up and decay shortened alike, so that the course of the learning rate is theirs. No learning rate is tuned. Nothing
is asserted: the tables are the result. What has finished is kept, so the benchmark can be stopped and started again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from bench_lgg import halves, prepare

from fedpeft.config.presets import RECIPES

ROUNDS = RECIPES["efficient"].fields["rounds"]


def shortened(recipe: str, share: float) -> list[str]:
    """Options that shorten a recipe; none for one whose schedule ends with the run."""
    fields = RECIPES[recipe].fields
    if fields["decay_epochs"] is None:
        return []
    changed = {
        "rounds": ROUNDS,
        "local-epochs": fields["rounds"] * fields["local_epochs"] * share / ROUNDS,
        "warmup-steps": round(fields["warmup_steps"] * share),
        "decay-epochs": fields["decay_epochs"] * share,
    }
    return [part for name, value in changed.items() for part in (f"--{name}", str(value))]


def main() -> None:
    """Run ``fedpeft compare`` once for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", default="efficient,paper,authors")
    parser.add_argument("--methods", default="flap_sam,full_ft")
    parser.add_argument("--settings", default="local,federated,centralized")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--share", type=float, default=0.01, help="of a published recipe's epochs (default 0.01)")
    args = parser.parse_args()
    data = prepare(args.source, args.out / "data", halves(args.source))
    for recipe in args.recipes.split(","):
        options = {
            "--data": data,
            "--methods": args.methods,
            "--settings": args.settings,
            "--training": recipe,
            "--seed": args.seeds,
            "--out": args.out / recipe,
        }
        command = ["compare", *(str(part) for pair in options.items() for part in pair), *shortened(recipe, args.share)]
        print("fedpeft", *command, flush=True)
        subprocess.run([sys.executable, "-m", "fedpeft.cli.main", *command], check=True)


if __name__ == "__main__":
    main()

"""``fedpeft compare``: local, centralized and federated training side by side."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from fedpeft.cli.options import (
    add_checkpoint_options,
    add_run_options,
    changed,
    checkpoint_of,
    method_list,
    print_table,
    subparser,
)
from fedpeft.data.datalist import read_sites
from fedpeft.spec.run import SETTINGS
from fedpeft.study.compare import Plan, compare, recipe
from fedpeft.study.overview import draw_first
from fedpeft.study.results import summary


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers, "compare", "train methods in several settings on a folder of sites, test every model everywhere",
        "fedpeft compare --data data/phantom --methods flap_sam --settings local,federated --out runs/phantom",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of <site>/datalist.json")
    parser.add_argument("--methods", type=method_list, default=["flap_sam"], help="comma-separated, default flap_sam")
    parser.add_argument("--settings", type=_settings, default=list(SETTINGS), help=f"default {','.join(SETTINGS)}")
    parser.add_argument("--seed", type=_seeds, default=[0], help="one seed, or several separated by commas; default 0")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs, tables and plots")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="cases of the table")
    parser.add_argument("--minutes", type=float, default=600, help="limit for one run of the simulator (default 600)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda:<index>")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_run_options(parser)
    add_checkpoint_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Compare, print the table, draw the picture."""
    start = changed(recipe(args.data), args)
    runs = [start.with_(method=method, seed=seed) for method in args.methods for seed in args.seed]
    checkpoint = checkpoint_of(start.backbone_row, args)
    plan = Plan(args.data, args.out, checkpoint, 60 * args.minutes, args.device, args.split)
    progress = sys.stderr if args.json else sys.stdout
    results = compare(plan, runs, args.settings, lambda line: print(line, file=progress, flush=True))
    picture = draw_first(plan, runs[0], args.settings, results)
    if args.json:
        print(json.dumps(results, indent=2))
        return 0
    columns, rows = summary(results)
    seeds = f"mean of seeds {', '.join(map(str, args.seed))}" if len(args.seed) > 1 else f"seed {args.seed[0]}"
    print_table(columns, rows, f"Dice, {args.split} cases of {len(read_sites(args.data))} sites, {seeds}")
    print(f"{args.out}/table.md, table.csv, cases.csv, results.json; picture: {picture}")
    return 0


def _settings(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown setting {unknown[0]!r}; known: {', '.join(SETTINGS)}")
    return names


def _seeds(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]

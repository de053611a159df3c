"""``fedpeft evaluate``: score a finished run's model on a folder of sites."""

import argparse
from pathlib import Path
from typing import Any

from fedpeft.cli.options import print_table, subparser
from fedpeft.cli.shared.checkpoint_options import add_checkpoint_options, checkpoint_of
from fedpeft.common.folders import unwritable
from fedpeft.config.run import Run
from fedpeft.data.datalist import SPLITS
from fedpeft.study.apply.evaluation import evaluate, write_evaluation
from fedpeft.tasks.mask_metrics import EMPTY_RULE, MASK_METRICS, NSD_TOLERANCE
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import Scoring
from fedpeft.training.server.run_folder import BEST, GLOBAL, find_run


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers,
        "evaluate",
        help_,
        "fedpeft evaluate --run runs/demo/flap_sam/seed-0/federated --data data/phantom --split test",
    )
    parser.add_argument("--run", type=Path, required=True, dest="folder", help="run folder, or a parent of one")
    parser.add_argument("--data", type=Path, required=True, help="folder of <site>/datalist.json")
    parser.add_argument("--split", choices=SPLITS, default="test", help="split whose cases are scored (default test)")
    parser.add_argument("--out", type=Path, help="folder for evaluation.json and .csv (default: the run folder)")
    add_metric_options(parser)
    parser.add_argument(
        "--save-predictions",
        type=Path,
        metavar="DIR",
        help="for segmentation: write every case's mask to DIR/<site>/<case>, as .nii.gz for volumes and as .png for "
        "images, on the image's own grid; a file of the same name is replaced, all others stay",
    )
    parser.add_argument("--best", action="store_true", help="use the best validated model instead of the last one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_checkpoint_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluate, write evaluation.json and evaluation.csv, print the means."""
    folder = find_run(args.folder)
    checkpoint = checkpoint_of(folder.run, args)
    which, scoring = BEST if args.best else GLOBAL, scoring_of(folder.run, args)
    if fault := unwritable(args.out or folder.path, "--out"):
        raise ValueError(fault)
    result = evaluate(folder, args.data, args.split, checkpoint, which, scoring, args.save_predictions)
    file = write_evaluation(result, args.out or folder.path)
    if args.json:
        print(file.read_text())
        return 0
    for title, columns, lines in result.metric_tables() or [(folder.run.task.title, *result.table())]:
        print_table(columns, lines, title=f"{title}, {args.split} cases")
    print(f"per case: {file} and {file.with_suffix('.csv')}")
    if scoring.metrics:
        print(EMPTY_RULE)
    if kept := result.predictions:
        print(f"masks: {kept.written} in {kept.path}, {kept.replaced} of them replaced older ones")
    return 0


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Add --metrics and --nsd-tolerance, which ``compare`` has too."""
    parser.add_argument(
        "--metrics",
        type=lambda text: [name.strip() for name in text.split(",")],
        default=[],
        metavar="NAME,...",
        help=f"for segmentation: further metrics of every case and class, some of {', '.join(MASK_METRICS)} (default: "
        f"Dice alone, which always is computed, selects models and may be named too). All are computed on the case's "
        f"own grid, in 3-D for volumes and in 2-D for images. hd95, the 95th percentile Hausdorff distance, and assd, "
        f"the average symmetric surface distance, are in mm (pixels for images), lower is better; nsd, the normalised "
        f"surface Dice, is from 0 to 1, higher is better. {EMPTY_RULE} They take about a second a case and class, up "
        f"to a minute for scattered masks".replace("%", "%%"),
    )
    parser.add_argument(
        "--nsd-tolerance",
        type=float,
        metavar="MM",
        help=f"surface distance up to which nsd counts as correct, in pixels for images (default {NSD_TOLERANCE:g}, "
        "the smallest of the FLARE challenge's)",
    )


def scoring_of(run: Run, args: argparse.Namespace) -> Scoring:
    """What the options ask for; ValueError if the run's task does not have it."""
    return task_of(run).scoring(args.metrics, args.nsd_tolerance)

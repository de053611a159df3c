"""The options of ``evaluate`` and ``compare`` that choose metrics."""

import argparse

from fedpeft.config.run import Run
from fedpeft.tasks.mask_metrics import EMPTY_RULE, MASK_METRICS, NSD_TOLERANCE
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import Scoring


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Add --metrics and --nsd-tolerance."""
    parser.add_argument(
        "--metrics",
        type=lambda text: [name.strip() for name in text.split(",")],
        default=[],
        metavar="NAME,...",
        help=f"for segmentation: further metrics of every case and class, some of {', '.join(MASK_METRICS)} (default: "
        f"Dice alone, which always is computed, selects models and may be named too). All are computed in 3-D on the "
        f"case's own grid. hd95, the 95th percentile Hausdorff distance, and assd, the average symmetric surface "
        f"distance, are in mm, lower is better; nsd, the normalised surface Dice, is from 0 to 1, higher is better. "
        f"{EMPTY_RULE} They take about a second a case and class, up to a minute for scattered masks".replace(
            "%", "%%"
        ),
    )
    parser.add_argument(
        "--nsd-tolerance",
        type=float,
        metavar="MM",
        help=f"surface distance up to which nsd counts as correct (default {NSD_TOLERANCE:g}, the smallest of the "
        "FLARE challenge's)",
    )


def scoring_of(run: Run, args: argparse.Namespace) -> Scoring:
    """What the options ask for; ValueError if the run's task does not have it."""
    return task_of(run).scoring(args.metrics, args.nsd_tolerance)

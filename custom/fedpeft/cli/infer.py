"""``fedpeft infer``: apply a run's model to a NIfTI volume or to a JPEG or PNG image."""

import argparse
import json
from pathlib import Path
from typing import Any

from fedpeft.cli.options import subparser
from fedpeft.cli.shared.checkpoint_options import add_checkpoint_options, checkpoint_of
from fedpeft.study.apply.inference import check_ending, check_image, infer
from fedpeft.training.server.run_folder import BEST, GLOBAL, find_run


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers,
        "infer",
        help_,
        "fedpeft infer --run runs/demo/flap_sam/seed-0/federated --image ct.nii.gz --out mask.nii.gz\n"
        "  fedpeft infer --run runs/skin/lora/seed-0/federated --image lesion.jpg --out lesion.json",
    )
    parser.add_argument("--run", type=Path, required=True, dest="folder", help="run folder, or a parent of one")
    parser.add_argument("--image", type=Path, required=True, help="NIfTI volume, or JPEG or PNG")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="file to write: a volume's mask as .nii or .nii.gz, an image's as .png, a class as .json",
    )
    parser.add_argument("--best", action="store_true", help="use the best validated model instead of the last one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_checkpoint_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the prediction and print it as a sentence or as JSON."""
    if args.out.exists() and args.out.samefile(args.image):
        raise ValueError(f"--out {args.out} is the image itself; give the result a file of its own")
    folder = find_run(args.folder)
    check_image(folder.run, args.image)
    check_ending(folder.run, args.out)
    found = infer(folder, args.image, args.out, checkpoint_of(folder.run, args), BEST if args.best else GLOBAL)
    print(json.dumps(found.values, indent=2) if args.json else found.sentence)
    return 0

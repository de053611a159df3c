"""``fedpeft export``: write a run's model as a file that FLAP-SAM, SAMed or MA-SAM loads."""

import argparse
from pathlib import Path
from typing import Any

from fedpeft.cli.options import subparser
from fedpeft.cli.shared.checkpoint_options import add_checkpoint_options, checkpoint_of
from fedpeft.models.peers.form import PEERS
from fedpeft.study.apply.exporting import export_file
from fedpeft.training.server.run_folder import BEST, GLOBAL, find_run


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers,
        "export",
        help_,
        "fedpeft export --run runs/mine/flap_sam/seed-0/federated --format flap_sam --checkpoint sam_vit_b_01ec64.pth "
        "--out global.pth",
    )
    parser.add_argument("--run", type=Path, required=True, dest="folder", help="run folder, or a parent of one")
    written = sorted(name for name, form in PEERS.items() if form.writes)
    parser.add_argument("--format", choices=written, required=True, help="the program that shall load it")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .pth or .pt")
    parser.add_argument("--best", action="store_true", help="use the best validated model instead of the last one")
    add_checkpoint_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Export, and print what the file is."""
    folder = find_run(args.folder)
    checkpoint = checkpoint_of(folder.run, args)
    what = export_file(args.format, folder, args.out, checkpoint, BEST if args.best else GLOBAL)
    print(f"{args.out}: {what}")
    return 0

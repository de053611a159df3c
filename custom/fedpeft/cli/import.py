"""``fedpeft import``: make a run of a model that FLAP-SAM, SAMed, MA-SAM or MedSAM trained."""

import argparse
import sys
from pathlib import Path
from typing import Any

from fedpeft.cli.options import subparser
from fedpeft.cli.run_options import add_run_options, fields, given
from fedpeft.config.methods import METHODS
from fedpeft.models.peers.form import PEERS
from fedpeft.study.apply.importing import Imported, import_file

# Fields of a run that a file may leave open.
OPEN = ("backbone", "image_size", "alpha", "stack", "stride", "stack_ends", "preprocessing")


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers,
        "import",
        help_,
        "fedpeft import --format samed --file epoch_159.pth --base sam_vit_b_01ec64.pth --out runs/samed\n"
        "  fedpeft import --format flap_sam --file global_ckpt_0.pth --base sam_vit_b_01ec64.pth --dataset kits19 "
        "--out runs/kits\n\n"
        "evaluate, infer, export and compare --initial-run take the run, with --checkpoint BASE.",
    )
    forms = ", ".join(f"{name} ({form.title})" for name, form in PEERS.items())
    parser.add_argument("--format", choices=sorted(PEERS), required=True, help=f"the program that saved it: {forms}")
    parser.add_argument("--file", type=Path, required=True, help="the file")
    parser.add_argument(
        "--base", type=Path, help="SAM's checkpoint that it was trained from; medsam needs none, as it is one itself"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument("--dataset", help="data set whose classes and intensities it knows (default folder)")
    parser.add_argument("--labels", type=lambda text: tuple(text.split(",")), help="names of the classes")
    parser.add_argument("--classes", type=int, help="number of classes, where the file does not tell")
    parser.add_argument(
        "--method",
        choices=sorted(METHODS),
        metavar="METHOD",
        help="see fedpeft methods (default: the one that trains least and holds everything that differs from the base)",
    )
    add_run_options(parser, without=fields().keys() - set(OPEN))
    return parser


def run(args: argparse.Namespace) -> int:
    """Import, and print what the file is and how the run is used."""
    values = {name: getattr(args, name) for name in ("dataset", "labels", "classes", "method")} | given(args)
    found = import_file(args.format, args.file, args.out, args.base, **values)
    _print(args, found)
    return 0


def _print(args: argparse.Namespace, found: Imported) -> None:
    form, made = PEERS.find(args.format), found.folder.run
    classes = ", ".join(name for index, name in made.label_table.items() if index)
    print(f"{args.file} is {found.seems}")
    print(
        f"{args.out}: {made.model.method} with {made.model.backbone} at {made.model.image_size} px; {classes}; "
        f"preprocessing {made.data.preprocessing}"
    )
    if not made.data.labels:
        what = "Its classes have" if made.data.classes > 1 else "Its class has"
        print(
            f"note: {what} no name; --labels NAME,... gives it, as --dataset of a data set with names", file=sys.stderr
        )
    if found.rounded:
        print(f"{found.rounded} frozen tensors differ from the base by rounding alone; the base's are used")
    if form.foundation:
        print(f"The output head is new. Use the run with --checkpoint {args.file}")
        if args.base:
            print(f"note: --base {args.base} was compared and is not needed any more", file=sys.stderr)
    elif args.base:
        print(f"Use the run with --checkpoint {args.base}")

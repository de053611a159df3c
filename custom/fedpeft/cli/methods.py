"""``fedpeft methods``: what each method trains, and what it sends a round."""

import argparse
import json
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from fedpeft.cli.options import print_table, subparser
from fedpeft.model.initial import skeleton
from fedpeft.model.parcel import parcel
from fedpeft.spec.backbones import BACKBONES
from fedpeft.spec.methods import METHODS
from fedpeft.spec.run import Run


@dataclass(frozen=True)
class Row:
    """Counts of one method: parameters, and one site's upload of a round in float32 without headers."""

    name: str
    task: str
    trainable: int
    total: int
    payload_bytes: int


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers, "methods", "list the methods with trainable and total parameters and bytes a round",
        "fedpeft methods --backbone sam_vit_b --classes 2",
    )
    parser.add_argument("--task", choices=("segmentation", "classification"), help="only methods of this task")
    parser.add_argument("--classes", type=int, default=1, help="classes besides background (default 1)")
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="sam_vit_b", help="default sam_vit_b")
    parser.add_argument("--rank", type=int, default=0, help="adapter rank (default: the backbone's)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the table. No checkpoint is needed: names and shapes are enough."""
    rows = [
        counted(name, args.backbone, args.classes, args.rank)
        for name, method in METHODS.items() if args.task in (None, method.task)
    ]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    cells = [
        [row.name, METHODS[row.name].title, METHODS[row.name].note, f"{row.trainable:,}", f"{row.total:,}",
         f"{row.payload_bytes / 1e6:,.2f} MB"]
        for row in rows
    ]
    title = f"{args.backbone}, {args.classes} class{'es' if args.classes > 1 else ''}"
    print_table(["method", "in the paper", "what trains", "trainable", "total", "upload a round"], cells, title)
    return 0


def counted(method: str, backbone: str, classes: int, rank: int) -> Row:
    """A method's counts on a backbone."""
    spec = Run(method, "folder", backbone, classes=classes, rank=rank)
    trainable = sum(prod(shape) for shape in parcel(spec).values())
    total = sum(parameter.numel() for parameter in skeleton(spec).parameters())
    return Row(method, METHODS[method].task, trainable, total, 4 * trainable)

"""``fedpeft methods``: what each method trains, and what it sends a round."""

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

from fedpeft.cli.options import print_table, subparser
from fedpeft.model.parcel import counts
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
        counted(_run(name, args))
        for name, method in METHODS.items() if args.task in (None, method.task)
    ]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    cells = [
        [row.name, METHODS[row.name].title, METHODS[row.name].note, *_on(_run(row.name, args)), f"{row.trainable:,}",
         f"{row.total:,}", f"{row.payload_bytes / 1e6:,.2f} MB"]
        for row in rows
    ]
    title = f"{args.backbone}, {args.classes} class{'es' if args.classes > 1 else ''}"
    head = ["method", "in the paper", "what trains", "rank", "px", "decoder", "trainable", "total", "upload a round"]
    print_table(head, cells, title)
    return 0


def _run(method: str, args: argparse.Namespace) -> Run:
    return Run(method, "folder", args.backbone, classes=args.classes, rank=args.rank)


def _on(run: Run) -> list[str]:
    """What the row becomes on the backbone: rank of its adapters, input side, how far the decoder upscales."""
    return [str(run.rank) if run.method_row.adapters else "", str(run.side), f"{2 ** len(run.upscaling)}x"]


def counted(run: Run) -> Row:
    """A run's counts."""
    trainable, total = counts(run)
    return Row(run.method, run.method_row.task, trainable, total, 4 * trainable)

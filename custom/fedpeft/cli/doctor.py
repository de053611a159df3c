"""``fedpeft doctor``: check whether this machine can take part in a federation, and print remedies."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpeft.cli.options import print_wide, subparser
from fedpeft.deploy.doctor.examine import examine, healthy, subject_of
from fedpeft.deploy.doctor.finding import FAULT, NOT_CHECKED, OK, WARNING, Finding
from fedpeft.deploy.doctor.subject import Needs

STYLES = {OK: "green", WARNING: "yellow", FAULT: "bold red", NOT_CHECKED: "dim"}


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers,
        "doctor",
        help_,
        "fedpeft doctor --kit /opt/fedpeft/hospital-1 --full",
    )
    parser.add_argument("--site", type=Path, help="site file (default: the kit's)")
    parser.add_argument("--kit", type=Path, help="folder with startup/ and local/ (default: the site file's)")
    parser.add_argument("--name", help="site's name, which replaces {site} (default: the kit's)")
    parser.add_argument("--full", action="store_true", help="read every case of the data sets, which takes a while")
    parser.add_argument(
        "--gpu-memory", type=float, metavar="GIB", help="required free GPU memory (default: by backbone)"
    )
    parser.add_argument(
        "--disk", type=float, metavar="GIB", default=Needs.disk_gib, help="required free space (default 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the checks for this machine; return 1 if one finds a fault."""
    needs = Needs(gpu_gib=args.gpu_memory, disk_gib=args.disk, full=args.full)
    with Console(stderr=True).status("examining"):
        findings = examine(subject_of(args.site, args.kit, args.name, needs))
    if args.json:
        print(json.dumps([finding.to_dict() for finding in findings], indent=2))
    else:
        _print(findings)
    return 0 if healthy(findings) else 1


def _print(findings: Sequence[Finding]) -> None:
    """Print a table of the findings, and the remedies below it."""
    table = Table()
    for name in ("check", "state", "found", "expected"):
        table.add_column(name, overflow="fold")
    for item in findings:
        style = STYLES[item.state]
        # As Text, since rich would read brackets in a path as markup.
        table.add_row(item.check, Text(item.state, style), Text(item.found), Text(item.expected))
    print_wide(table)
    for item in findings:
        if item.remedy:
            print(f"{item.state}: {item.check}: {item.remedy}")
    counts = (f"{sum(item.state == state for item in findings)} {state}" for state in STYLES)
    print(", ".join(counts))

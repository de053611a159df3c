"""``fedpeft data``: make, prepare and check folders of sites."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fedpeft.cli import prepare
from fedpeft.cli.options import print_table
from fedpeft.common.faults import counted
from fedpeft.data.check import Report, check
from fedpeft.data.datalist import Site, read_sites
from fedpeft.data.phantom.sites import write_phantom
from fedpeft.study.plots import NO_PLOTS, can_plot
from fedpeft.training.client.site_file import register

WORKSPACE = "poc/simulator"
PARTITION_PLOT = "partition.png"

PHANTOM = """example:
  fedpeft data phantom --out data/phantom --sites 3 --seed 0 --register
"""
CHECK = """The exit status is 1 if there is a fault; warnings do not count.

example:
  fedpeft data check data/phantom
"""


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add ``data`` and its subcommands to the main parser's subparsers; return its parser."""
    parser = subparsers.add_parser(
        "data",
        help=help_,
        description="Make, prepare and check folders of sites.",
        epilog=PHANTOM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="phantom|prepare|check")
    phantom = prepare.add_command(commands, "phantom", "write synthetic NIfTI data of several sites", PHANTOM)
    phantom.add_argument(
        "--out", type=Path, required=True, help="folder to write; an earlier phantom there is replaced"
    )
    phantom.add_argument("--sites", type=int, default=3, help="number of sites (default 3)")
    phantom.add_argument("--seed", type=int, default=0, help="seed of the data (default 0)")
    _add_register(phantom)
    for source in prepare.add_parser(commands):
        source.add_argument("--out", type=Path, required=True, help="folder to write")
        _add_register(source)
    checked = prepare.add_command(
        commands, "check", "check geometry, labels, intensities and counts of every site", CHECK
    )
    checked.add_argument("dir", type=Path, metavar="DIR", help="folder of <site>/datalist.json")
    checked.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; return the exit status.

    Raises:
        ValueError, OSError: the input is faulty; the message says how to repair it.
    """
    return {"phantom": _phantom, "prepare": _prepare, "check": _check}[args.data_command](args)


def _add_register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--register",
        nargs="?",
        type=Path,
        const=Path(WORKSPACE),
        metavar="WORKSPACE",
        help=f"enter the folder in the site file of a FLARE workspace (without a value: {WORKSPACE})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _phantom(args: argparse.Namespace) -> int:
    return _made(args, "phantom", read_sites(write_phantom(args.out, args.sites, args.seed)))


def _partition_plot(sites: Sequence[Site], file: Path) -> str:
    """Plot the sites' classes; return a line for people."""
    if not can_plot():
        return NO_PLOTS
    from fedpeft.study.plots.partition import plot_partition

    return f"who has what: {plot_partition(sites, file)}"


def _prepare(args: argparse.Namespace) -> int:
    prepared = prepare.prepare(args)
    notes = list(prepared.notes)
    if any(case.target is not None for site in prepared.sites for cases in site.splits.values() for case in cases):
        notes.append(_partition_plot(prepared.sites, args.out / PARTITION_PLOT))
    return _made(args, args.dataset, prepared.sites, notes)


def _made(args: argparse.Namespace, dataset: str, sites: Sequence[Site], notes: Sequence[str] = ()) -> int:
    site_file = None
    if args.register is not None:
        site_file = register(args.register, dataset, args.out)
    counts = [{"site": site.name, **{split: len(cases) for split, cases in site.splits.items()}} for site in sites]
    if args.json:
        made = {"out": str(args.out), "site_file": site_file and str(site_file), "sites": counts, "notes": list(notes)}
        print(json.dumps(made, indent=1))
        return 0
    lines = [[str(value) for value in line.values()] for line in counts]
    print_table(list(counts[0]), lines, f"{dataset} in {args.out}")
    for note in notes:
        print(note)
    if site_file is not None:
        print(f"registered in {site_file}")
    return 0


def _check(args: argparse.Namespace) -> int:
    with Console(stderr=True).status("") as status:
        report = check(args.dir, before_read=lambda case: status.update(f"reading {case.site}/{case.case}"))
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        _print_report(args.dir, report)
    return 1 if report.faults else 0


def _print_report(folder: Path, report: Report) -> None:
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for site in report.sites:
        head, line = zip(*site.line(), strict=True)
        tables.setdefault(head, []).append(list(line))
    for head, lines in tables.items():
        print_table(list(head), lines, str(folder))
    for title, sentences in (("warning", report.warnings), ("fault", report.faults)):
        for sentence in sentences:
            print(f"{title}: {sentence}")
    of = (("site", report.sites), ("fault", report.faults), ("warning", report.warnings))
    print(", ".join(counted(len(found), noun) for noun, found in of))

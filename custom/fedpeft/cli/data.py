"""``fedpeft data``: make, prepare and check folders of sites."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpeft.data.check import Report
    from fedpeft.data.datalist import Site

WORKSPACE = "poc/simulator"

PHANTOM = """example:
  fedpeft data phantom --out data/phantom --sites 3 --seed 0 --register
"""
PREPARE = """The source holds <site>/<case>/ folders, each with an image and a label of the given names. All files are
read before anything is written, and every fault is listed. A case that is in the table but not on disk, or the
reverse, is a fault; so is a split other than train, training, val, valid, validation and test, unless it is left out
on purpose with --ignore-split. Without a table each site is split 70 / 10 / 20. The splits are kept in split.csv.

examples:
  fedpeft data prepare folder --source lgg --image flair.nii.gz --label mask.nii.gz \\
      --table lgg/manifest.csv --case-column case --split-column split --out data/lgg --register
  fedpeft data prepare folder --source scans --image ct.nii.gz --label seg.nii.gz --labels 1=kidney,2=tumour \\
      --seed 7 --out data/kidneys
"""
CHECK = """Exits with 1 if there is any fault; warnings do not count.

example:
  fedpeft data check data/phantom
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``data`` and its subcommands to the main parser's subparsers; returns its parser."""
    parser = subparsers.add_parser(
        "data", help="make, prepare and check folders of sites", description=__doc__, epilog=PHANTOM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="phantom|prepare|check")
    phantom = _add(commands, "phantom", "synthetic multi-site NIfTI, deterministic", PHANTOM)
    phantom.add_argument("--out", type=Path, required=True, help="folder to make; an earlier phantom is replaced")
    phantom.add_argument("--sites", type=int, default=3, help="number of sites (default 3)")
    phantom.add_argument("--seed", type=int, default=0, help="default 0")
    _add_register(phantom)
    _add_prepare(commands)
    check = _add(commands, "check", "geometry, labels, intensities and counts of every site", CHECK)
    check.add_argument("dir", type=Path, metavar="DIR", help="folder of <site>/datalist.json")
    check.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status.

    Raises:
        ValueError, OSError: with everything a person needs to repair the input.
    """
    return {"phantom": _phantom, "prepare": _prepare, "check": _check}[args.data_command](args)


def _add(commands: Any, name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_prepare(commands: Any) -> None:
    parser = _add(commands, "prepare", "a real data set's own layout to one folder a site", PREPARE)
    parser.add_argument("dataset", choices=["folder"], help="layout of the source")
    parser.add_argument("--source", type=Path, required=True, help="folder of <site>/<case>/ folders; not changed")
    parser.add_argument("--image", required=True, metavar="NAME", help="the image's name in a case folder")
    parser.add_argument("--label", required=True, metavar="NAME", help="the label's name in a case folder")
    parser.add_argument("--labels", type=_labels, metavar="1=NAME,...", help="label table (default 1=target)")
    parser.add_argument("--table", type=Path, metavar="CSV", help="table of splits; further columns do not matter")
    parser.add_argument("--case-column", default="case", metavar="C", help="default case")
    parser.add_argument("--split-column", default="split", metavar="C", help="default split")
    parser.add_argument("--site-column", default="site", metavar="C", help="default site; used if the table has it")
    parser.add_argument(
        "--ignore-split", action="append", default=[], metavar="VALUE", help="leave these cases out; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the splits where there is no table (default 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    _add_register(parser)


def _add_register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--register",
        nargs="?",
        type=Path,
        const=Path(WORKSPACE),
        metavar="WORKSPACE",
        help=f"enter the folder in the site file of a FLARE workspace (default {WORKSPACE})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _labels(text: str) -> dict[int, str]:
    try:
        pairs = [part.split("=", 1) for part in text.split(",")]
        table = {int(index): name.strip() for index, name in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}, expected 1=NAME,2=NAME,...") from error
    table = {0: "background", **table}
    if sorted(table) != list(range(len(table))) or not all(table.values()):
        raise argparse.ArgumentTypeError(f"{text!r}, expected names for 1, 2, ... without a gap")
    return table


def _phantom(args: argparse.Namespace) -> int:
    from fedpeft.data.datalist import read_sites
    from fedpeft.data.phantom import write_phantom

    return _made(args, "phantom", read_sites(write_phantom(args.out, args.sites, args.seed)))


def _prepare(args: argparse.Namespace) -> int:
    from fedpeft.data.folder import BINARY, Tree, prepare_folder
    from fedpeft.data.table import Columns

    columns = Columns(args.case_column, args.split_column, args.site_column, tuple(args.ignore_split))
    labels = args.labels or BINARY
    tree = Tree(args.source, args.image, args.label, args.table, columns, labels, args.seed)
    return _made(args, args.dataset, prepare_folder(tree, args.out))


def _made(args: argparse.Namespace, dataset: str, sites: Sequence["Site"]) -> int:
    site_file = None
    if args.register is not None:
        from fedpeft.train.site_file import register

        site_file = register(args.register, dataset, args.out)
    counts = [{"site": site.name, **{split: len(cases) for split, cases in site.splits.items()}} for site in sites]
    if args.json:
        print(json.dumps({"out": str(args.out), "site_file": site_file and str(site_file), "sites": counts}, indent=1))
        return 0
    _table(f"{dataset} in {args.out}", list(counts[0]), [[str(value) for value in row.values()] for row in counts])
    if site_file is not None:
        print(f"registered in {site_file}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from fedpeft.data.check import check

    report = check(args.dir)
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        _print_report(args.dir, report)
    return 1 if report.faults else 0


def _print_report(folder: Path, report: "Report") -> None:
    head = ["site", "train/val/test", "voxels R A S", "mm R A S", "axes", "labels, % of voxels"]
    rows = [
        [
            site.site,
            "/".join(str(count) for count in site.cases.values()),
            _range(*site.shape),
            _range(*site.spacing),
            " ".join(site.orientation),
            ", ".join(f"{name} {100 * share:.2f}" for name, share in site.share.items()),
        ]
        for site in report.sites
    ]
    if rows:
        _table(str(folder), head, rows)
    for title, lines in (("warning", report.warnings), ("fault", report.faults)):
        for line in lines:
            print(f"{title}: {line}")
    print(f"{len(report.sites)} sites, {len(report.faults)} faults, {len(report.warnings)} warnings")


def _range(low: Sequence[float], high: Sequence[float]) -> str:
    pairs = zip(low, high, strict=True)
    return " x ".join(f"{a:g}" if a == b else f"{a:g}-{b:g}" for a, b in pairs)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=False).print(table)

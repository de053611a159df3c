"""Images of one class each, in class folders or listed by a table."""

import argparse
from pathlib import Path

from fedpeft.data.found import Found
from fedpeft.data.sources.image_table import ImageColumns, find_in_table
from fedpeft.data.sources.image_tree import DATASET, TREES, find_in_tree
from fedpeft.data.sources.registry import (
    Source,
    add_partition,
    add_seed,
    add_source,
    add_validation,
    register_source,
)

# Help for every source of images.
SHARED = (
    "All images are read before anything is written, and every fault is listed. With --partition, cases are "
    "redistributed to site-1, site-2, ...; each keeps its split, and the cases of a lesion or patient stay together. "
    "split.csv lists the splits, partition.png shows each site's cases, and where lesions or patients are known, "
    "lesion_clean_test.csv lists the test cases of those that no training or validation case shows."
)
HELP = (
    "The source holds JPEG and PNG files in class folders (--tree), or a table (--table) names them by paths relative "
    "to the source or to itself. Where neither gives the split, each site is split 70 / 10 / 20, stratified by class, "
    "with no lesion or patient in two splits."
)
EXAMPLES = (
    "fedpeft data prepare images --source photos --tree {site}/{class} --out data/photos --register",
    "fedpeft data prepare images --source ham10000 --table ham10000/manifest.csv --label-column dx \\\n"
    "    --site-column center --group-column lesion_id --out data/ham10000",
    "fedpeft data prepare images --source photos --partition dirichlet --sites 5 --alpha 0.3 --out data/skewed",
)
# Options that only apply to a table.
COLUMNS = {
    "image": "path; default image",
    "label": "class; default label",
    "site": "default site, if there is one",
    "split": "default split, if there is one",
    "group": "lesion or patient; default group, if there is one",
}


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Add the options of every source of images: validation, partition and seed."""
    add_validation(
        parser,
        "share of each site's training lesions, patients or single cases to take for validation, at least one "
        "(default: none); of sources that have splits",
    )
    add_partition(parser)
    add_seed(parser, "of every random choice")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "folder that holds the images")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--tree", choices=TREES, default=TREES[0], metavar="FORM", help=f"{', '.join(TREES)} (default: the first)"
    )
    form.add_argument("--table", type=Path, metavar="CSV", help="table of images instead of a tree")
    parser.add_argument(
        "--labels", type=_labels, default=(), metavar="A,B,...", help="classes by index (default: as found, sorted)"
    )
    for kind, text in COLUMNS.items():
        parser.add_argument(f"--{kind}-column", metavar="C", help=f"of the table: {text}")
    add_shared(parser)


def _find(args: argparse.Namespace) -> Found:
    given = {kind: name for kind in COLUMNS if (name := getattr(args, f"{kind}_column")) is not None}
    if args.table is None:
        if given:
            raise ValueError(f"--{next(iter(given))}-column names a column; expected --table CSV with it")
        return find_in_tree(args.source, args.tree, args.labels)
    return find_in_table(args.source, args.table, ImageColumns(**given), args.labels)


def _labels(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) < max(2, len(names)) or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r}, expected two or more different names, A,B,...")
    return names


register_source(Source(DATASET, f"{HELP}\n\n{SHARED}", EXAMPLES, _add_options, _find))

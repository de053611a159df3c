"""``fedpeft data prepare images`` and ``isic2019``: pictures of one class each, to one folder a site."""

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path

from fedpeft.config.datasets import DATASETS
from fedpeft.data.partition import NATURAL, PARTITIONS
from fedpeft.data.prepare.image_preparation import Choices, Found, prepare_pictures
from fedpeft.data.prepare.staging import Prepared, Progress
from fedpeft.data.sources.image_table import PictureColumns, read_table_of_pictures
from fedpeft.data.sources.image_tree import DATASET, TREES, read_tree
from fedpeft.data.sources.isic2019 import NAME, ORIGIN, TABLE, read_isic2019

SHARED = (
    "All pictures are read before anything is written, and every fault is listed. With --partition cases are dealt out "
    "anew to site-1, site-2, ...; each keeps its split, and the cases of a lesion or patient stay together. The splits "
    "are kept in split.csv, partition.png shows who has what, and where lesions or patients are known "
    "lesion_clean_test.csv lists the test cases of those that no training or validation case shows."
)
IMAGES = (
    "The source holds JPEG and PNG files in class folders (--tree), or a table (--table) names them by paths relative "
    "to the source or to itself. Where neither says the split each site is split 70 / 10 / 20, stratified by class, no "
    "lesion or patient on two sides."
)
IMAGES_EXAMPLES = """examples:
  fedpeft data prepare images --source photos --tree {site}/{class} --out data/photos --register
  fedpeft data prepare images --source ham10000 --table ham10000/manifest.csv --label-column dx \\
      --site-column center --group-column lesion_id --out data/ham10000
  fedpeft data prepare images --source photos --partition dirichlet --sites 5 --alpha 0.3 --out data/skewed
"""
ISIC = (
    f"The source holds <image>.jpg of ISIC 2019 in any folder. Sites and splits are those of {ORIGIN}. Its split is by "
    "image: give --lesions to know which test cases show a lesion that was never trained on."
)
ISIC_EXAMPLES = f"""examples:
  fedpeft data prepare {NAME} --source ISIC_2019 --table {TABLE} --lesions ISIC_2019_Training_Metadata.csv \\
      --validation 0.1 --out data/{NAME} --register
  fedpeft data prepare {NAME} --source ISIC_2019 --table {TABLE} --partition iid --sites 6 --out data/iid
"""
# Options that only a table has a use for.
TABLE_OPTIONS = ("image_column", "label_column", "site_column", "split_column", "group_column")

AddCommand = Callable[[str, str, str], argparse.ArgumentParser]


def add_parsers(add: AddCommand) -> list[argparse.ArgumentParser]:
    """Add both commands by a function of name, help and epilog; returns their parsers.

    Each sets ``prepare``, a function of arguments, progress and nothing else.
    """
    images = add(DATASET, DATASETS[DATASET].title, _epilog(IMAGES, IMAGES_EXAMPLES))
    _add_images(images)
    isic = add(NAME, DATASETS[NAME].title, _epilog(ISIC, ISIC_EXAMPLES))
    _add_isic(isic)
    for parser, find in ((images, _images), (isic, _isic)):
        _add_shared(parser)
        parser.set_defaults(prepare=lambda args, progress, find=find: _prepare(args, find, progress))
    return [images, isic]


def _epilog(text: str, examples: str) -> str:
    paragraphs = (textwrap.fill(part, 110, break_on_hyphens=False) for part in (text, SHARED))
    return "\n\n".join((*paragraphs, examples))


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="folder that holds the pictures; not changed")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--tree", choices=TREES, default=TREES[0], metavar="FORM", help=f"{', '.join(TREES)} (default: the first)"
    )
    form.add_argument("--table", type=Path, metavar="CSV", help="table of pictures instead of a tree")
    parser.add_argument(
        "--labels", type=_labels, default=(), metavar="A,B,...", help="classes by index (default: as found, sorted)"
    )
    columns = {
        "image": "path; default image",
        "label": "class; default label",
        "site": "default site, if there is one",
        "split": "default split, if there is one",
        "group": "lesion or patient; default group, if there is one",
    }
    for kind, text in columns.items():
        parser.add_argument(f"--{kind}-column", metavar="C", help=f"of the table: {text}")


def _add_isic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="folder that holds the pictures; not changed")
    parser.add_argument("--table", type=Path, metavar="FILE", help=f"sites and splits (default: {TABLE} in the source)")
    parser.add_argument(
        "--lesions", type=Path, metavar="CSV", help="HAM10000_metadata or ISIC_2019_Training_Metadata.csv"
    )
    parser.add_argument("--partial", action="store_true", help="leave out cases of the table that have no file")


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--validation", type=float, metavar="SHARE",
        help="share of each site's training lesions, patients or single cases to take for validation, at least one "
        "(default: none); of sources that have splits",
    )  # fmt: skip
    parser.add_argument(
        "--partition", choices=(NATURAL, *PARTITIONS), default=NATURAL,
        help="natural: the source's own sites (default); iid: equal and at random; dirichlet: equal, classes skewed "
        "(Hsu et al. 2019); quantity: sizes skewed",
    )  # fmt: skip
    parser.add_argument("--sites", type=int, metavar="N", help="number of sites of any but the natural partition")
    parser.add_argument("--alpha", type=float, metavar="A", help="smaller is more skewed (default 0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")


def _prepare(args: argparse.Namespace, find: Callable[[argparse.Namespace], Found], progress: Progress) -> Prepared:
    return prepare_pictures(find(args), args.out, _choices(args), progress)


def _choices(args: argparse.Namespace) -> Choices:
    dealt = args.partition != NATURAL
    skewed = dealt and PARTITIONS[args.partition].skewed
    for option, value, meant in (("--sites", args.sites, dealt), ("--alpha", args.alpha, skewed)):
        if value is not None and not meant:
            raise ValueError(f"{option} {value} means nothing with --partition {args.partition}; leave it out")
    if dealt and args.sites is None:
        raise ValueError(f"--partition {args.partition} needs --sites N")
    alpha = Choices.alpha if args.alpha is None else args.alpha
    return Choices(args.validation, args.partition, args.sites or 0, alpha, args.seed)


def _images(args: argparse.Namespace) -> Found:
    given = {name: getattr(args, name) for name in TABLE_OPTIONS if getattr(args, name) is not None}
    if args.table is None:
        if given:
            raise ValueError(f"--{next(iter(given)).replace('_', '-')} names a column; expected --table CSV with it")
        return read_tree(args.source, args.tree, args.labels)
    columns = PictureColumns(**{name.removesuffix("_column"): value for name, value in given.items()})
    return read_table_of_pictures(args.source, args.table, columns, args.labels)


def _isic(args: argparse.Namespace) -> Found:
    return read_isic2019(args.source, args.table, args.lesions, args.partial)


def _labels(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) < max(2, len(names)) or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r}, expected two or more different names, A,B,...")
    return names

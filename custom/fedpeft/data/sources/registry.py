"""The registry of sources. A new one is one module, of this package or another, that calls ``register_source``.

Modules of this package are found without being named. A data set needs one such module, which finds its cases, and one
entry in ``fedpeft.config.datasets``.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fedpeft.common.folders import refuse_existing
from fedpeft.common.registry import Registry
from fedpeft.data.found import Found
from fedpeft.data.partition import EQUAL, NATURAL, PARTITIONS
from fedpeft.data.prepare.pipeline import Choices, prepare
from fedpeft.data.prepare.staging import Prepared, Progress, no_progress
from fedpeft.data.table import PLACE_COLUMNS, read_places


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: a subcommand of ``fedpeft data prepare``.

    Attributes:
        name: name of the subcommand and of the data set.
        help: what the source looks like, for people.
        examples: commands, one or more.
        add_options: adds the source's own options to the subcommand's parser.
        find: the parsed options -> the cases; it opens no image.
    """

    name: str
    help: str
    examples: tuple[str, ...]
    add_options: Callable[[argparse.ArgumentParser], None]
    find: Callable[[argparse.Namespace], Found]

    def prepare(self, args: argparse.Namespace, progress: Progress = no_progress) -> Prepared:
        """Prepare the data set as the options say, into ``args.out``; see ``prepare.pipeline``.

        Raises:
            FileExistsError: ``args.out`` exists and is not empty; the source has not been read.
        """
        refuse_existing(args.out)
        return prepare(self.find(args), args.out, _choices(args), progress)


SOURCES: Registry[Source] = Registry("source", __package__)


def register_source(source: Source) -> Source:
    """Add a source, and return it; ValueError if there is another one of its name."""
    return SOURCES.register(source.name, source)


def add_source(parser: argparse.ArgumentParser, help_: str) -> None:
    """Add ``--source``."""
    parser.add_argument("--source", type=Path, required=True, help=f"{help_}; not changed")


def add_validation(parser: argparse.ArgumentParser, help_: str) -> None:
    """Add ``--validation``."""
    parser.add_argument("--validation", type=float, metavar="SHARE", help=help_)


def add_seed(parser: argparse.ArgumentParser, help_: str) -> None:
    """Add ``--seed``."""
    parser.add_argument("--seed", type=int, default=0, help=f"{help_} (default 0)")


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add ``--table``, which ``placed`` reads, and the names of its columns."""
    parser.add_argument(
        "--table", type=Path, metavar="CSV",
        help="table with a line for every case and its site, split, group (lesion or patient) or several of these, "
        "such as an earlier split.csv",
    )  # fmt: skip
    for kind in PLACE_COLUMNS:
        parser.add_argument(f"--{kind}-column", metavar="C", help=f"of the table; default {kind}")


def placed(found: Found, args: argparse.Namespace) -> Found:
    """The same with the sites, splits and groups of ``--table``; its faults are added, and their cases left out.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it lacks a column, or a column is named without a table.
    """
    columns = {kind: name for kind in PLACE_COLUMNS if (name := getattr(args, f"{kind}_column")) is not None}
    if args.table is None:
        if columns:
            raise ValueError(f"--{next(iter(columns))}-column names a column; expected --table CSV with it")
        return found
    places, faults = read_places(args.table, [case.case for case in found.cases], columns)
    cases = [
        replace(case, site=place.site or case.site, split=place.split, group=place.group)
        for case in found.cases
        if (place := places.get(case.case)) is not None
    ]
    return replace(found, cases=cases, faults=[*found.faults, *faults])


def add_partition(parser: argparse.ArgumentParser) -> None:
    """Add ``--partition`` with its number of sites and its alpha."""
    parser.add_argument(
        "--partition", choices=(NATURAL, *PARTITIONS),
        help="natural: the source's own sites (default); iid: equal and at random (default with --sites); dirichlet: "
        "equal, classes skewed (Hsu et al. 2019); quantity: sizes skewed",
    )  # fmt: skip
    parser.add_argument("--sites", type=int, metavar="N", help="number of sites of any but the natural partition")
    parser.add_argument("--alpha", type=float, metavar="A", help="smaller is more skewed (default 0.5)")


def _choices(args: argparse.Namespace) -> Choices:
    """The user's choices; an option that the source does not offer has its default.

    Raises:
        ValueError: an option does not go with the partition.
    """
    how, sites, alpha = (getattr(args, name, None) for name in ("partition", "sites", "alpha"))
    how = how or (NATURAL if sites is None else EQUAL)
    dealt = how != NATURAL
    skewed = dealt and PARTITIONS[how].skewed
    for option, value, meant in (("--sites", sites, dealt), ("--alpha", alpha, skewed)):
        if value is not None and not meant:
            raise ValueError(f"{option} {value} means nothing with --partition {how}; leave it out")
    if dealt and sites is None:
        raise ValueError(f"--partition {how} needs --sites N")
    return Choices(
        validation=getattr(args, "validation", None),
        partition=how,
        sites=sites or 0,
        alpha=Choices.alpha if alpha is None else alpha,
        seed=getattr(args, "seed", 0),
    )

"""The options that name a backbone's weights, for commands outside of a FLARE site."""

import argparse
from pathlib import Path

from fedpeft.config.run import Run
from fedpeft.study.apply.checkpoint import find_checkpoint


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint and --site, of which one may be given."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--checkpoint", type=Path, help="file with the backbone's published weights")
    group.add_argument("--site", type=Path, help="site file that names the checkpoint")


def checkpoint_of(run: Run, args: argparse.Namespace, must_exist: bool = True) -> Path | None:
    """The file of the weights that a run starts from, see ``find_checkpoint``."""
    return find_checkpoint(run, args.checkpoint, args.site, must_exist)

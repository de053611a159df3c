"""Where a backbone's weights are, for commands outside of a FLARE site."""

import argparse
from pathlib import Path

from fedpeft.config.run import Run
from fedpeft.models.checkpoints.start import needs_file, own
from fedpeft.training.client.site_file import read_site_file, verified


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Where a backbone's weights are, for commands outside of a FLARE site."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--checkpoint", type=Path, help="file with the backbone's published weights")
    group.add_argument("--site", type=Path, help="site file that names the checkpoint")


def checkpoint_of(run: Run, args: argparse.Namespace) -> Path | None:
    """The weights that a run starts from, as the options say; those that are shipped need no option, random ones none.

    Raises:
        ValueError: they are not shipped and no option names them, or an option names some where none are used.
    """
    if run.model.initial == "random":
        if args.checkpoint:
            raise ValueError(f"--checkpoint {args.checkpoint} and random initial weights: give one of the two")
        return None
    if args.checkpoint:
        return verified(args.checkpoint, None)
    if args.site:
        return read_site_file(args.site, "here").checkpoint(run)
    if needs_file(run):
        raise ValueError(
            f"{run.model.initial} weights of {run.model.backbone} are not shipped: give --checkpoint FILE, or --site FILE that "
            f"names them"
        )
    return own(run)

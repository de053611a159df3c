"""A federation's model, for benchmarks that keep no run folder."""

import shutil
from pathlib import Path

from torch.nn import Module

from fedpeft.config.run import Run
from fedpeft.data.datalist import Site
from fedpeft.training.server.in_process import train_in_process


def federate(run: Run, sites: list[Site], checkpoint: Path | None, folder: Path) -> Module:
    """A federation's model after all rounds, in evaluation mode; ``folder`` is made anew and removed."""
    shutil.rmtree(folder, ignore_errors=True)
    model = train_in_process(run, sites, checkpoint, folder / "run", "federated").model(checkpoint)
    shutil.rmtree(folder)
    return model

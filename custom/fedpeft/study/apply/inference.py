"""One image through a run's model."""

from pathlib import Path

from fedpeft.config.run import Run
from fedpeft.tasks.base import Written
from fedpeft.tasks.registry import task_of
from fedpeft.training.server.run_folder import GLOBAL, RunFolder


def check_ending(run: Run, out: Path) -> None:
    """Check that ``out`` has a name that the run's task writes.

    Raises:
        ValueError: it has not; the message lists the endings.
    """
    endings = task_of(run).endings
    if not out.name.endswith(endings):
        raise ValueError(f"--out is {out}, expected a name that ends in {' or '.join(endings)}")


def infer(folder: RunFolder, image: Path, out: Path, checkpoint: Path | None, which: str = GLOBAL) -> Written:
    """Write what a run's model finds in one image.

    Args:
        folder: of the run.
        image: NIfTI volume, or JPEG or PNG, as the run's task takes.
        out: the file to write, see ``check_ending``; its folder is made.
        checkpoint: the one that the run started from; None where it started from random weights.
        which: the run's last model or its best one.

    Raises:
        FileNotFoundError, ValueError: the image is missing or faulty, or the checkpoint is another one.
    """
    run = folder.run
    check_ending(run, out)
    model = folder.model(checkpoint, which)
    return task_of(run).predict(model, image, run, folder.preprocessing).write(out)

"""Apply a run's model to one image."""

from pathlib import Path

from fedpeft.config.run import Run
from fedpeft.tasks.base import Written
from fedpeft.tasks.registry import task_of
from fedpeft.training.server.run_folder import GLOBAL, RunFolder


def check_ending(run: Run, out: Path) -> None:
    """Check that ``out`` has an ending that the run's task writes.

    Raises:
        ValueError: it has another ending; the message lists the expected ones.
    """
    endings = task_of(run).endings
    if not out.name.endswith(endings):
        raise ValueError(f"--out is {out}, expected a name that ends in {' or '.join(endings)}")


def infer(folder: RunFolder, image: Path, out: Path, checkpoint: Path | None, which: str = GLOBAL) -> Written:
    """Write the prediction of a run's model for one image.

    Args:
        folder: the run folder.
        image: NIfTI volume, or JPEG or PNG, as the run's task requires.
        out: the file to write, see ``check_ending``; its folder is created if it is missing.
        checkpoint: the weights that the run started from; None if it started from random ones.
        which: file of the model, the last or the best one.

    Raises:
        FileNotFoundError, ValueError: the image is missing or faulty, or the checkpoint is not the run's.
    """
    run = folder.run
    check_ending(run, out)
    model = folder.model(checkpoint, which)
    return task_of(run).predict(model, image, run, folder.preprocessing).write(out)

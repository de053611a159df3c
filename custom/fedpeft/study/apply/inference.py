"""Apply a run's model to one image."""

from pathlib import Path

from fedpeft.config.run import Run
from fedpeft.tasks.base import KINDS, Written
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


def check_image(run: Run, image: Path) -> None:
    """Check that ``image`` is not of a kind that only runs of another task take.

    Raises:
        ValueError: it is, by the ending of its name; the message says what the run takes.
    """
    task, name = task_of(run), image.name.lower()
    other = next((kind for kind in KINDS if kind != task.takes and name.endswith(kind.endings)), None)
    if other:
        raise ValueError(f"this run {task.does} {task.takes.many}; {image} is {other.one}")


def infer(folder: RunFolder, image: Path, out: Path, checkpoint: Path | None, which: str = GLOBAL) -> Written:
    """Write the prediction of a run's model for one image.

    Args:
        folder: the run folder.
        image: NIfTI volume, or JPEG or PNG, as the run's task requires.
        out: the file to write, see ``check_ending``; its folder is created if it is missing.
        checkpoint: the weights that the run started from; None if it started from random ones.
        which: file of the model, the last or the best one.

    Raises:
        FileNotFoundError, ValueError: the image is missing, faulty or of another kind, or the checkpoint is not the
            run's.
    """
    run = folder.run
    check_image(run, image)
    check_ending(run, out)
    model = folder.model(checkpoint, which)
    return task_of(run).predict(model, image, run, folder.preprocessing).write(out)

"""All tasks by name."""

from typing import Any

from fedpeft.common.registry import find
from fedpeft.config.run import Run
from fedpeft.tasks.base import Task
from fedpeft.tasks.classification import ClassificationTask
from fedpeft.tasks.segmentation import SegmentationTask

_TASKS: dict[str, Task[Any, Any]] = {}


def register(task: Task[Any, Any]) -> None:
    """Make a task known under the name of its entry.

    Raises:
        ValueError: another task has that name.
    """
    if task.entry.name in _TASKS:
        raise ValueError(f"task {task.entry.name!r} is registered already; give the other one a name of its own")
    _TASKS[task.entry.name] = task


def find_task(name: str) -> Task[Any, Any]:
    """The task called ``name``.

    Raises:
        ValueError: there is none; the message lists those that exist.
    """
    return find(_TASKS, name, "task")


def task_of(run: Run) -> Task[Any, Any]:
    """The task of a run."""
    return find_task(run.task.name)


register(SegmentationTask())
register(ClassificationTask())

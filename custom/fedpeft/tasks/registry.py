"""The registry of tasks."""

from typing import Any

from fedpeft.common.registry import Registry
from fedpeft.config.run import Run
from fedpeft.tasks.base import Task
from fedpeft.tasks.classification import ClassificationTask
from fedpeft.tasks.image_segmentation import ImageSegmentationTask
from fedpeft.tasks.segmentation import SegmentationTask

_TASKS: Registry[Task[Any, Any]] = Registry("task")


def register(task: Task[Any, Any]) -> None:
    """Make a task known under the name of its entry; ValueError if another one has that name."""
    _TASKS.register(task.entry.name, task)


def find_task(name: str) -> Task[Any, Any]:
    """The task called ``name``; ValueError if there is none."""
    return _TASKS.find(name)


def task_of(run: Run) -> Task[Any, Any]:
    """The task of a run."""
    return find_task(run.task.name)


register(SegmentationTask())
register(ClassificationTask())
register(ImageSegmentationTask())

"""Tasks are found by name and by run; one from outside the package is registered like those of the package."""

from dataclasses import replace

import pytest

from fedpeft.config.datasets import DATASETS
from fedpeft.config.tasks import TASKS
from fedpeft.study.plots.overview import FIGURES
from fedpeft.tasks import registry
from fedpeft.tasks.registry import find_task, register, task_of
from fedpeft.tasks.segmentation import SegmentationTask


@pytest.mark.parametrize("name", TASKS)
def test_every_entry_has_its_class(name):
    task = find_task(name)
    assert task.entry is TASKS[name]
    assert DATASETS[task.entry.dataset].task == name
    assert task.figure in FIGURES and task.endings


def test_a_run_has_its_task(run, classifying):
    assert task_of(run) is find_task("segmentation") and task_of(classifying) is find_task("classification")


def test_an_unknown_task_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown task 'detection'; known: segmentation, classification"):
        find_task("detection")


def test_a_task_from_outside_is_found_and_no_name_is_taken_twice(monkeypatch):
    class Outlines(SegmentationTask):
        entry = replace(TASKS["segmentation"], name="outlines")

    monkeypatch.setattr(registry._TASKS, "_entries", dict(registry._TASKS))
    mine = Outlines()
    register(mine)
    assert find_task("outlines") is mine
    with pytest.raises(ValueError, match="task 'outlines' is registered already"):
        register(Outlines())

"""Tasks: what a model answers, and by which number models are selected and compared.

A task is a row. What it trains on, its loss and its score are in ``fedpeft.tasks.base``, its networks in
``fedpeft.models.networks``; nothing else depends on which task it is.
"""

from dataclasses import dataclass

from fedpeft.common.registry import find


@dataclass(frozen=True)
class Task:
    """A row of the tasks table.

    Attributes:
        name: what commands and data sets call it.
        of_case: name of a score, which belongs to a case and a class, 0 to 1.
        of_class: name of the mean score over the cases of a class.
        metric: name of the mean of these over the classes: what selects and compares models.
        title: the metric for people.
        background: outputs of the model that stand for none of the classes.
        backbone: for which methods are listed if none is named.
        classes: for which methods are listed if no number is given.
    """

    name: str
    of_case: str
    of_class: str
    metric: str
    title: str
    background: int
    backbone: str
    classes: int


TASKS: dict[str, Task] = {
    row.name: row
    for row in (
        # A case's score is 1 if its class was found, else 0.
        Task(
            "classification",
            "correct",
            "recall",
            "balanced_accuracy",
            "balanced accuracy",
            background=0,
            backbone="vit_b16",
            classes=8,
        ),
        Task("segmentation", "dice", "dice", "dice", "Dice", background=1, backbone="sam_vit_b", classes=1),
    )
}


def task(name: str) -> Task:
    """The row called ``name``; ValueError if there is none."""
    return find(TASKS, name, "task")

"""Tasks: what a model answers, and by which number models are selected and compared.

A task is a row. What it trains on, its loss and its score are in ``fedpeft.train.tasks``, its networks in
``fedpeft.model.networks``; nothing else depends on which task it is.
"""

from dataclasses import dataclass

from fedpeft.spec.lookup import find


@dataclass(frozen=True)
class Task:
    """A row of the tasks table.

    Attributes:
        name: what commands and data sets call it.
        metric: the score's name in records and tables. A score belongs to a case and a class, 0 to 1; its mean over
            the cases of a class first, then over the classes, is what selects and compares.
        title: the metric for people.
        background: outputs of the model that stand for none of the classes.
        backbone: for which methods are listed if none is named.
        classes: for which methods are listed if no number is given.
    """

    name: str
    metric: str
    title: str
    background: int
    backbone: str
    classes: int


TASKS: dict[str, Task] = {
    row.name: row
    for row in (
        Task("segmentation", "dice", "Dice", background=1, backbone="sam_vit_b", classes=1),
        # A case's score is 1 if its class was found, else 0: the mean over the cases of a class is its recall, the mean
        # of the recalls is the balanced accuracy.
        Task("classification", "balanced_accuracy", "balanced accuracy", background=0, backbone="vit_b16", classes=8),
    )
}


def task(name: str) -> Task:
    """The row called ``name``; ValueError if there is none."""
    return find(TASKS, name, "task")

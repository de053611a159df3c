"""Tasks: what a model predicts, and the metric by which models are selected and compared.

A task's entry names its metrics and defaults. A class in ``fedpeft.tasks`` implements its data, loss, prediction and
score; ``fedpeft.models.networks`` has its networks.
"""

from dataclasses import dataclass

from fedpeft.common.registry import Registry


@dataclass(frozen=True)
class TaskEntry:
    """A task's entry.

    Attributes:
        name: what commands and data sets call it.
        of_case: name of the score of one case and class, 0 to 1.
        of_class: name of the mean score over the cases of a class.
        metric: name of the mean of these over the classes, which selects and compares models.
        title: the metric for people.
        background: number of model outputs that stand for no class.
        backbone: default backbone of the list of methods.
        dataset: the data set whose recipe and preprocessing serve data of any other name.
        classes: default number of classes of the list of methods.
        stacks: whether the network sees stacks of neighbouring slices, which a method may mix.
        unused: fields of a run that the task does not read.
        like: the task whose methods, backbones and networks serve this one too; "" if it has its own.
    """

    name: str
    of_case: str
    of_class: str
    metric: str
    title: str
    background: int
    backbone: str
    dataset: str
    classes: int
    stacks: bool = False
    unused: tuple[str, ...] = ()
    like: str = ""

    @property
    def base(self) -> str:
        """Name of the task that methods, backbones and networks name if they serve this one."""
        return self.like or self.name


TASKS: Registry[TaskEntry] = Registry("task")
# Fields that say how stacks are cut out of volumes.
STACKS = ("stack", "stride", "background_ratio", "stack_ends")


def register_tasks(*entries: TaskEntry) -> None:
    """Add tasks; ValueError if there is one of that name."""
    for entry in entries:
        TASKS.register(entry.name, entry)


def task(name: str) -> TaskEntry:
    """The entry called ``name``; ValueError if there is none."""
    return TASKS.find(name)


register_tasks(
    # A case's score is 1 if its class was found, else 0.
    TaskEntry(
        "classification",
        "correct",
        "recall",
        "balanced_accuracy",
        "balanced accuracy",
        background=0,
        backbone="vit_b16",
        dataset="images",
        classes=8,
        unused=(*STACKS, "preprocessing", "augmentation", "dice_weight", "loss_size"),
    ),
    TaskEntry(
        "segmentation",
        "dice",
        "dice",
        "dice",
        "Dice",
        background=1,
        backbone="sam_vit_b",
        dataset="folder",
        classes=1,
        stacks=True,
        unused=("loss",),
    ),
    # Two-dimensional images; segmentation is of volumes.
    TaskEntry(
        "image_segmentation",
        "dice",
        "dice",
        "dice",
        "Dice",
        background=1,
        backbone="sam_vit_b",
        dataset="image_masks",
        classes=1,
        unused=(*STACKS, "loss"),
        like="segmentation",
    ),
)

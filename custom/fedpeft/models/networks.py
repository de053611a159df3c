"""Networks: what a backbone becomes for a task, as a table."""

from torch import nn

from fedpeft.config.run import Run
from fedpeft.models.sam.classifier import SamClassifier
from fedpeft.models.sam.network import SegmentationSam
from fedpeft.models.vit.network import VitClassifier

# (the backbone's family, the task) -> the network, which a run makes.
NETWORKS: dict[tuple[str, str], type[nn.Module]] = {
    ("sam", "segmentation"): SegmentationSam,
    ("sam", "classification"): SamClassifier,
    ("vit", "classification"): VitClassifier,
}


def network(run: Run) -> nn.Module:
    """The run's network without adapters, on PyTorch's default device; its values are not those of any checkpoint.

    Raises:
        ValueError: there is none for the backbone's family and the task.
    """
    made = NETWORKS.get((run.backbone.family, run.task.name))
    if made is None:
        known = ", ".join(f"{family} for {task}" for family, task in NETWORKS)
        raise ValueError(
            f"no network makes {run.model.backbone} ({run.backbone.family}) fit {run.task.name}; known: {known}"
        )
    return made(run)

"""Measures of a classifier that belong to a set of cases, not to one case."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from monai.metrics import compute_roc_auc
from monai.utils import Average
from torch import Tensor

from fedpeft.tasks.scores import CaseScore

# Measure that is one number -> its heading.
TITLES = {"accuracy": "Accuracy", "macro_f1": "Macro F1", "auroc": "AUROC"}


def measures(scores: Sequence[CaseScore], labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro F1, AUROC and the confusion matrix.

    Args:
        scores: scores that have probabilities.
        labels: names of the classes in the order of the probabilities.

    Returns:
        "accuracy"; "macro_f1", the mean F1 of the classes that occur; "auroc", the one-against-rest AUROC averaged over
        the classes that occur, None if only one does; "confusion", counts[true class][predicted class].

    Raises:
        ValueError: there is no score.
    """
    if not scores:
        raise ValueError("no case was scored: the split is empty; give cases to it or choose another with --split")
    probabilities = torch.tensor([item.probabilities for item in scores])
    truth = torch.tensor([labels.index(item.label) for item in scores])
    found = confusion(truth, probabilities.argmax(dim=1), len(labels))
    return {
        "accuracy": int(found.diagonal().sum()) / len(scores),
        "macro_f1": _macro_f1(found),
        "auroc": _auroc(probabilities, truth),
        "confusion": found.tolist(),
    }


def confusion(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Counts (classes, classes), [true class][predicted class]."""
    return torch.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _macro_f1(found: Tensor) -> float:
    right, true, predicted = found.diagonal().double(), found.sum(dim=1), found.sum(dim=0)
    return float((2 * right / (true + predicted).clamp(min=1))[true > 0].mean())


def _auroc(probabilities: Tensor, truth: Tensor) -> float | None:
    occurring = truth.unique().tolist()
    if len(occurring) < 2:
        return None
    one_hot = torch.nn.functional.one_hot(truth, probabilities.shape[1])[:, occurring]
    values = compute_roc_auc(probabilities[:, occurring], one_hot, average=Average.NONE)
    return fmean(map(float, values))

"""Linear probe: how well a linear function of features tells classes apart that they were not trained for."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

CHUNK = 64


@torch.no_grad()
def features_of(features: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Features (N, dim) of images (N, 3, image_size, image_size), computed in chunks."""
    return torch.cat([features(chunk) for chunk in images.split(CHUNK)])


def probe(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], penalty: float = 0.01) -> float:
    """Balanced accuracy of a ridge regression of the classes' indicators, in which every class has the same weight.

    Args:
        train: features (N, dim) and classes (N,) int64 from 0 on, each of which occurs.
        test: features and classes of other images; the mean is over the classes that occur here.
        penalty: ridge penalty on the standardised features, as a share of their unit variance.
    """
    (inputs, classes), (others, truth) = train, test
    mean, deviation = inputs.double().mean(dim=0), inputs.double().std(dim=0).clamp(min=1e-6)
    x, y = _with_one((inputs - mean) / deviation), one_hot(classes).double()
    weight = (1 / y.sum(dim=0))[classes, None] / y.shape[1]
    ridge = penalty * torch.eye(x.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(x.mT @ (weight * x) + ridge, x.mT @ (weight * y))
    found = (_with_one((others - mean) / deviation) @ solved).argmax(dim=1)
    hits = (found == truth).double()
    return torch.stack([hits[truth == index].mean() for index in truth.unique()]).mean().item()


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features.double(), features.new_ones(len(features), 1).double()], dim=1)

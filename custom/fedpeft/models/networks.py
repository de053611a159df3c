"""Networks: one class for each family of backbones and task."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from fedpeft.common.registry import Registry
from fedpeft.config.run import Run

Network = TypeVar("Network", bound=type[nn.Module])

# "<the backbone's family> for <the task>" -> a class that is made from a run.
NETWORKS: Registry[type[nn.Module]] = Registry("network", __package__)


def register_network(family: str, task: str) -> Callable[[Network], Network]:
    """Add the decorated class, which is made from a run, as the network of a family of backbones for a task.

    Raises:
        ValueError: there is another one for these.
    """

    def register(made: Network) -> Network:
        NETWORKS.register(f"{family} for {task}", made)
        return made

    return register


def network(run: Run) -> nn.Module:
    """The run's network without adapters, on PyTorch's default device; no checkpoint is loaded.

    Raises:
        ValueError: there is none for the backbone's family and the task.
    """
    family = run.backbone.family
    made = NETWORKS.get(f"{family} for {run.task.base}")
    if made is None:
        raise ValueError(
            f"no network makes {run.model.backbone} ({family}) fit {run.task.name}; known: {', '.join(NETWORKS)}"
        )
    return made(run)

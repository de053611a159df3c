"""The registry of server optimisers. A new one is one module of this package that calls ``register_optimiser``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedpeft.algebra.space import Change
from fedpeft.common.registry import Registry

VELOCITY, SQUARE = "velocity", "square"
# What lasts over rounds: VELOCITY -> a change, SQUARE -> a tensor of the shape of a change's ``square``.
Moments = dict[str, Any]


@dataclass(frozen=True)
class Rates:
    """The constants of a step.

    Attributes:
        learning_rate: eta > 0.
        momentum: beta, the share of the velocity that stays, 0 to below 1.
        tau: > 0 for adaptive optimisers: the size of an update far below which steps are not adapted.
    """

    learning_rate: float = 1.0
    momentum: float = 0.0
    tau: float = 0.0


Step = Callable[[Change, Moments, Rates], tuple[Change, Moments]]


@dataclass(frozen=True)
class Optimiser:
    """A server optimiser.

    Attributes:
        step: (update D, moments, rates) -> (change of the server's model, moments after the round). D is the sites'
            average minus the server's model. Moments are those of ``keeps``; a velocity starts at zero, squares at
            tau^2.
        keeps: names of the moments, of VELOCITY and SQUARE.
    """

    step: Step
    keeps: tuple[str, ...]


OPTIMISERS: Registry[Optimiser] = Registry("server optimiser", __package__)


def register_optimiser(name: str, *keeps: str) -> Callable[[Step], Step]:
    """Add the decorated function as a server optimiser.

    A run can name it once ``fedpeft.config.strategies.server_optimisers`` has an entry of the same name.

    Args:
        name: what jobs call it.
        keeps: see `Optimiser`.

    Raises:
        ValueError: there is another one of that name.
    """

    def register(step: Step) -> Step:
        OPTIMISERS.register(name, Optimiser(step, keeps))
        return step

    return register

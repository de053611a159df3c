"""What a server optimiser needs of a group of tensors: to add, scale and square the group's changes.

A server optimiser (``fedpeft.algebra.server_optimisers``) is an equation in the update of a round. For plain tensors
the equation holds for each entry. For low-rank products it holds for the product, which is what a network sees, and
never for the factors: B A = (B R^-1)(R A) for every invertible R, so sums of factors depend on the basis, which changes
from round to round. An averaging rule whose tensors can move so names a `Space`.
"""

from abc import ABC, abstractmethod
from typing import Any, Protocol

from torch import Tensor

Leaves = dict[str, Tensor]
Report = dict[str, float | None]


class Change(Protocol):
    """A model of a group of tensors, or a change of one: a Tensor, or what has the same operations."""

    def __add__(self, other: Any, /) -> Any:
        """The sum of two changes."""

    def __rmul__(self, number: float, /) -> Any:
        """A multiple of the change."""

    def __truediv__(self, size: Tensor, /) -> Any:
        """The change over a tensor of the shape of its ``square``."""

    def square(self) -> Tensor:
        """The squares from which adaptive optimisers take the size of a step, in float64."""


class Space(ABC):
    """How the models of one kind of group change."""

    @abstractmethod
    def model(self, leaves: Leaves) -> Change:
        """The model, or the kept velocity, that the leaves hold; in float64."""

    @abstractmethod
    def leaves(self, model: Change, last: Leaves) -> tuple[Leaves, Report]:
        """The leaves of a model, in the shapes, dtypes and basis of ``last``, and what they lose.

        Args:
            model: the model, or the velocity.
            last: the leaves before the round.
        """

    @abstractmethod
    def at_rest(self, leaves: Leaves) -> Leaves:
        """The velocity before the first round, which is zero, in the shapes in which it is kept."""

    @abstractmethod
    def no_square(self, leaves: Leaves) -> Tensor:
        """Zeros, float32, in the shape of a change's ``square``."""

"""Values that a new tensor can start with: a function of shape and generator alone, the same on every machine.

Random values are made in float64 on the CPU; the copy into a float32 tensor rounds once.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor


class Initial(Protocol):
    """How a tensor starts."""

    def sample(self, shape: torch.Size, generator: Generator) -> Tensor:
        """Values of the given shape, on the CPU."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value everywhere."""

    value: float

    def sample(self, shape: torch.Size, generator: Generator) -> Tensor:
        """See ``Initial``."""
        return torch.full(shape, self.value)


@dataclass(frozen=True)
class Gaussian:
    """Normally distributed around zero.

    Attributes:
        deviation: the standard deviation, above 0.
    """

    deviation: float

    def sample(self, shape: torch.Size, generator: Generator) -> Tensor:
        """See ``Initial``."""
        return torch.randn(shape, generator=generator, dtype=torch.float64) * self.deviation


@dataclass(frozen=True)
class Uniform:
    """Uniformly distributed within -bound and bound."""

    bound: float

    def sample(self, shape: torch.Size, generator: Generator) -> Tensor:
        """See ``Initial``."""
        return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * self.bound


ZEROS, ONES = Constant(0.0), Constant(1.0)

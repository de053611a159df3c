"""Plain tensors, whose changes add, scale and square entry by entry."""

import torch
from torch import Tensor

from fedpeft.algebra.finite import all_finite
from fedpeft.algebra.space import Change, Leaves, Report, Space


class EntrySpace(Space):
    """One leaf "" of any shape."""

    def model(self, leaves: Leaves) -> Tensor:
        """The leaf in float64."""
        return leaves[""].double()

    def leaves(self, model: Change, last: Leaves) -> tuple[Leaves, Report]:
        """The tensor in the dtype of ``last``.

        Raises:
            ValueError: if a value is not finite.
        """
        assert isinstance(model, Tensor)
        found = model.to(last[""].dtype)
        if not all_finite(found):
            raise ValueError("the server's step overflows: lower --server-learning-rate")
        return {"": found}, {}

    def at_rest(self, leaves: Leaves) -> Leaves:
        """Zeros of the leaf's shape."""
        return {"": torch.zeros_like(leaves[""])}

    def no_square(self, leaves: Leaves) -> Tensor:
        """Zeros of the leaf's shape."""
        return torch.zeros_like(leaves[""], dtype=torch.float32)

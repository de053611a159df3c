"""Sums of low-rank products, which stay factors: models, updates and velocities of modules B A.

The update of a round is B' A' - B A, the velocity a sum of such updates, and the new model again a sum. So everything
is a combination sum_i c_i B_i A_i of a few products, exact until the best approximation of rank r is taken
(``lowrank.average_products``, without the (out, in) matrix). A change of basis of any of them changes nothing.
"""

from dataclasses import asdict

import torch
from torch import Tensor

from fedpeft.algebra.lowrank import Factors, average_products
from fedpeft.algebra.space import Change, Leaves, Report, Space


class Products:
    """sum_i c_i B_i A_i, all of one shape (out, in), in float64.

    Args:
        terms: factors -> coefficient; equal factors are one object, so that equal terms merge.
    """

    def __init__(self, terms: dict[Factors, float]) -> None:
        self.terms = terms

    def __add__(self, other: "Products") -> "Products":
        """The sum; the coefficients of common terms are added."""
        both = self.terms | other.terms
        return Products({term: self.terms.get(term, 0.0) + other.terms.get(term, 0.0) for term in both})

    def __rmul__(self, number: float) -> "Products":
        """The multiple by a number."""
        return Products({term: number * c for term, c in self.terms.items()})

    def __truediv__(self, size: Tensor) -> "Products":
        """The quotient by a tensor of one number, as `square` gives it."""
        return (1 / float(size)) * self

    def factors(self) -> Factors:
        """The sum as one product of rank sum_i r_i over the terms that count, the coefficients in B."""
        terms = {term: c for term, c in self.terms.items() if c} or self.terms
        b = torch.cat([c * term.b for term, c in terms.items()], dim=1)
        return Factors(b, torch.cat([term.a for term in terms]))

    def square(self) -> Tensor:
        """The mean square of the entries, ||sum_i c_i B_i A_i||^2 / (out in), a tensor without dimensions.

        Squares of the single entries would have rank up to the square of this one's, and their root, which scales a
        step, has no low rank; squares of the factors' entries depend on the basis. The mean is of the product alone.
        From the QR of the stacked factors, [c_i B_i] = Q1 R1 and [A_i]^T = Q2 R2, the norm is that of R1 R2^T.
        """
        whole = self.factors()
        left, right = (torch.linalg.qr(stack, mode="r").R for stack in (whole.b, whole.a.mT))
        return (left @ right.mT).square().sum() / (whole.shape[0] * whole.shape[1])


class ProductSpace(Space):
    """Leaves "A" (r, in) and "B" (out, r). A velocity has rank 2 r, the largest of an update's; see `at_rest`."""

    def model(self, leaves: Leaves) -> Products:
        """The product of the leaves."""
        return Products({Factors(leaves["B"], leaves["A"]).double(): 1.0})

    def leaves(self, model: Change, last: Leaves) -> tuple[Leaves, Report]:
        """The best approximation of the rank of ``last``, in the basis closest to that of ``last``.

        Raises:
            ValueError: if a value is not finite.
        """
        assert isinstance(model, Products)
        found, report = average_products([model.factors()], [1.0], Factors(last["B"], last["A"]))
        lost = asdict(report)
        return {"A": found.a, "B": found.b}, {name: lost[name] for name in ("energy_kept", "truncation_error")}

    def at_rest(self, leaves: Leaves) -> Leaves:
        """Zeros of rank 2 r, or min(out, in) if that is less: the velocity is the best approximation of that rank.

        An update, the difference of two models of rank r, has rank up to 2 r, so the first velocity is exact.
        """
        (out, rank), inn = leaves["B"].shape, leaves["A"].shape[1]
        width = min(2 * rank, out, inn)
        return {"A": leaves["A"].new_zeros(width, inn), "B": leaves["B"].new_zeros(out, width)}

    def no_square(self, leaves: Leaves) -> Tensor:
        """A zero without dimensions."""
        return torch.zeros(())

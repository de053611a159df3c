"""Adaptive steps (Reddi et al., Adaptive federated optimization, ICLR 2021, algorithm 2).

v <- beta v + (1 - beta) D, s <- one of the three below, x <- x + eta v / (sqrt(s) + tau), s = tau^2 before the first
round, without bias correction. s has an entry for each entry of a plain tensor, and one number for a product: the mean
square of its update (`products.Products.square`), so that all its entries share a step's size.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fedpeft.algebra.server_optimisers.registry import SQUARE, VELOCITY, Moments, Rates, Step, register_optimiser
from fedpeft.algebra.space import Change

# The paper's beta_2.
DECAY = 0.99


def _adaptive(next_square: Callable[[Tensor, Tensor], Tensor]) -> Step:
    """The step whose squares follow ``next_square`` (s, D^2)."""

    def step(update: Change, moments: Moments, rates: Rates) -> tuple[Change, Moments]:
        velocity = rates.momentum * moments[VELOCITY] + (1 - rates.momentum) * update
        square = next_square(moments[SQUARE].double(), update.square())
        size = square.sqrt() + rates.tau
        return rates.learning_rate * (velocity / size), {VELOCITY: velocity, SQUARE: square}

    return step


def adam(before: Tensor, now: Tensor) -> Tensor:
    """FedAdam: s <- beta_2 s + (1 - beta_2) D^2."""
    return DECAY * before + (1 - DECAY) * now


def yogi(before: Tensor, now: Tensor) -> Tensor:
    """FedYogi: s <- s - (1 - beta_2) D^2 sign(s - D^2)."""
    return before - (1 - DECAY) * now * torch.sign(before - now)


def adagrad(before: Tensor, now: Tensor) -> Tensor:
    """FedAdagrad: s <- s + D^2."""
    return before + now


register_optimiser("adam", VELOCITY, SQUARE)(_adaptive(adam))
register_optimiser("yogi", VELOCITY, SQUARE)(_adaptive(yogi))
register_optimiser("adagrad", VELOCITY, SQUARE)(_adaptive(adagrad))

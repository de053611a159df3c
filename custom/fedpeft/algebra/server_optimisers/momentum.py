"""Steps along the update, without and with momentum.

FedAvg (McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS 2017);
FedAvgM (Hsu, Qi and Brown, Measuring the effects of non-identical data distribution, 2019); Nesterov's form as in
Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.
"""

from fedpeft.algebra.server_optimisers.registry import VELOCITY, Moments, Rates, register_optimiser
from fedpeft.algebra.space import Change


@register_optimiser("average")
def average(update: Change, moments: Moments, rates: Rates) -> tuple[Change, Moments]:
    """FedAvg: x <- x + eta D; with eta = 1 the average itself."""
    return rates.learning_rate * update, {}


@register_optimiser("momentum", VELOCITY)
def momentum(update: Change, moments: Moments, rates: Rates) -> tuple[Change, Moments]:
    """FedAvgM: v <- beta v + D, x <- x + eta v."""
    velocity = rates.momentum * moments[VELOCITY] + update
    return rates.learning_rate * velocity, {VELOCITY: velocity}


@register_optimiser("nesterov", VELOCITY)
def nesterov(update: Change, moments: Moments, rates: Rates) -> tuple[Change, Moments]:
    """FedAvgM with Nesterov's look-ahead: v <- beta v + D, x <- x + eta (D + beta v)."""
    velocity = rates.momentum * moments[VELOCITY] + update
    return rates.learning_rate * (update + rates.momentum * velocity), {VELOCITY: velocity}

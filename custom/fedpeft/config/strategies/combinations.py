"""Which strategies go together, from their entries; a void combination has a reason and the nearest valid choice."""

from collections.abc import Iterator
from typing import Any

from fedpeft.config.methods import Method
from fedpeft.config.strategies.averaging_rules import AVERAGING_RULES
from fedpeft.config.strategies.server_optimisers import SERVER_OPTIMISERS, ServerOptimiser
from fedpeft.config.strategies.site_weightings import SITE_WEIGHTINGS

Check = tuple[str, Any, bool, str]


def goes_with(rule: str, optimiser: ServerOptimiser, learning_rate: float | None = None) -> bool:
    """Whether a server optimiser moves the tensors of an averaging rule.

    Args:
        rule: name of the averaging rule; one that has no entry cannot move.
        optimiser: the server optimiser's entry.
        learning_rate: of the server; None: the entry's.
    """
    moves = rule in AVERAGING_RULES and AVERAGING_RULES[rule].moves
    return moves or (optimiser.is_average and (learning_rate or optimiser.learning_rate) == 1)


def step_of(federation: Any) -> dict[str, float]:
    """The constants of the server's step: as the complete section sets them, else the entry's, else 0."""
    entry = SERVER_OPTIMISERS[federation.server_optimiser]
    found = {}
    for name in ("learning_rate", "momentum", "tau"):
        given = getattr(federation, f"server_{name}")
        found[name] = (getattr(entry, name) or 0.0) if given is None else given
    return found


def is_average(federation: Any) -> bool:
    """Whether the server moves to the average itself."""
    entry = SERVER_OPTIMISERS[federation.server_optimiser]
    return entry.is_average and step_of(federation)["learning_rate"] == 1


def checks(federation: Any, method: Method, dataset: str, published: bool) -> Iterator[Check]:
    """The checks of a run's federation: field, its value, whether it is valid, and what is expected instead.

    Args:
        federation: the run's complete section.
        method: the run's method.
        dataset: name of the run's data set.
        published: whether weights of the data set's sites are published.
    """
    entry = SERVER_OPTIMISERS[federation.server_optimiser]
    with_momentum, adaptive = (
        ", ".join(name for name, other in SERVER_OPTIMISERS.items() if getattr(other, field) is not None)
        for field in ("momentum", "tau")
    )
    rate = federation.server_learning_rate
    stay = [rule for rule in dict.fromkeys(rule for _, rule in method.rules) if not goes_with(rule, entry, rate)]
    yield (
        "site_weighting",
        federation.site_weighting,
        not SITE_WEIGHTINGS[federation.site_weighting].published or published,
        f"another one: no weights are published for {dataset}; use --site-weighting slices",
    )
    yield (
        "server_momentum",
        federation.server_momentum,
        federation.server_momentum is None or entry.momentum is not None,
        f"not to be set: server optimiser {entry.name} has no momentum; use one of {with_momentum}",
    )
    yield (
        "server_tau",
        federation.server_tau,
        federation.server_tau is None or entry.tau is not None,
        f"not to be set: server optimiser {entry.name} does not adapt its steps; use one of {adaptive}",
    )
    yield (
        "server_optimiser",
        entry.name,
        not stay,
        f"average with learning rate 1 for method {method.name}: rule {', '.join(stay)} of its tensors cannot add "
        "momentum or scale a step; or choose a method without that rule",
    )

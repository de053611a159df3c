"""Which strategies go together, from their entries; every void combination has a reason and the nearest valid choice."""

from collections.abc import Iterator
from typing import Any

from fedpeft.config.methods import Method
from fedpeft.config.strategies.averaging_rules import AVERAGING_RULES
from fedpeft.config.strategies.server_optimisers import SERVER_OPTIMISERS
from fedpeft.config.strategies.site_weightings import SITE_WEIGHTINGS

Check = tuple[str, Any, bool, str]


def rules_that_stay(method: Method) -> list[str]:
    """The averaging rules of a method whose tensors the server can move to the average alone."""
    names = dict.fromkeys(name for _, name in method.rules)
    return [name for name in names if name not in AVERAGING_RULES or not AVERAGING_RULES[name].moves]


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
    return entry.momentum is None and entry.tau is None and federation.server_learning_rate in (None, 1.0)


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
    stay = rules_that_stay(method)
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
        not stay or is_average(federation),
        f"average with learning rate 1 for method {method.name}: rule {', '.join(stay)} of its tensors cannot add "
        "momentum or scale a step; or choose a method without that rule",
    )

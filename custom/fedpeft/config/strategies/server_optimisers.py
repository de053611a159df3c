"""Server optimisers: registry entries, which ``fedpeft.algebra.server_optimisers`` implements under the same names."""

from dataclasses import dataclass

from fedpeft.common.registry import Registry


@dataclass(frozen=True)
class ServerOptimiser:
    """A server optimiser's entry.

    Attributes:
        name: what jobs and commands call it.
        note: its step for an update D, the sites' average minus the server's model, for people.
        learning_rate: default of ``server_learning_rate``.
        momentum: default of ``server_momentum``; None: it has no momentum.
        tau: default of ``server_tau``; None: it does not adapt its steps.
    """

    name: str
    note: str
    learning_rate: float = 1.0
    momentum: float | None = None
    tau: float | None = None

    @property
    def is_average(self) -> bool:
        """Whether its step is a multiple of the update."""
        return self.momentum is None and self.tau is None


SERVER_OPTIMISERS: Registry[ServerOptimiser] = Registry("server optimiser")


def register_server_optimisers(*entries: ServerOptimiser) -> None:
    """Add server optimisers; ValueError if there is one of that name."""
    for entry in entries:
        SERVER_OPTIMISERS.register(entry.name, entry)


# Momentum 0.5 because runs are short: at 0.9, which Hsu et al. use over thousands of rounds, ten rounds pass before the
# velocity is two thirds of what it tends to. The adaptive ones have the constants of Reddi et al., 2021.
register_server_optimisers(
    ServerOptimiser("average", "the average: D times the learning rate (FedAvg)"),
    ServerOptimiser("momentum", "v <- momentum v + D; step v (FedAvgM, Hsu et al. 2019)", momentum=0.5),
    ServerOptimiser("nesterov", "the same v; step D + momentum v (Nesterov's look-ahead)", momentum=0.5),
    ServerOptimiser(
        "adam", "momentum over the root of a decaying mean of D^2 (FedAdam, Reddi et al. 2021)", 0.01, 0.9, 1e-3
    ),
    ServerOptimiser(
        "yogi", "the same, whose mean of D^2 changes by D^2 at most (FedYogi, Reddi et al. 2021)", 0.01, 0.9, 1e-3
    ),
    ServerOptimiser(
        "adagrad", "D over the root of the sum of all D^2 (FedAdagrad, Reddi et al. 2021)", 0.01, 0.0, 1e-3
    ),
)

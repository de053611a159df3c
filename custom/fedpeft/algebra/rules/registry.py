"""The registry of averaging rules. A new one is one module of this package that calls ``register_rule``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedpeft.algebra.space import Leaves, Report, Space
from fedpeft.common.registry import Registry

Average = Callable[[Leaves, Sequence[Leaves], Sequence[float]], tuple[Leaves, Report]]
Split = Callable[[str], tuple[str, str]]


@dataclass(frozen=True)
class Rule:
    """How one kind of parameter is averaged.

    Attributes:
        split: parameter path -> (group, leaf); the tensors of a group are averaged together.
        average: (base leaves, the leaves of each site, weights) -> (averaged leaves, report). The sites' leaves come in
            float64; results have the keys, shapes and dtypes of the base. The report holds plain numbers, or nothing.
        space: how the server's optimisers move the tensors of a group; None: to the average alone.
    """

    split: Split
    average: Average
    space: Space | None = None


def alone(key: str) -> tuple[str, str]:
    """Split a path for a rule that looks at one tensor at a time."""
    return key, ""


def siblings(key: str) -> tuple[str, str]:
    """Split `encoder.qkv.lora.q.A` into `encoder.qkv.lora.q` and `A`."""
    group, _, leaf = key.rpartition(".")
    return group, leaf


RULES: Registry[Rule] = Registry("averaging rule", __package__)


def register_rule(name: str, split: Split = siblings, space: Space | None = None) -> Callable[[Average], Average]:
    """Add the decorated function as the averaging rule that methods call ``name``.

    Args:
        name: what methods' entries call it.
        split: which tensors it averages together.
        space: see `Rule`; a rule with one has ``moves`` in its entry of ``fedpeft.config.strategies.averaging_rules``.

    Raises:
        ValueError: there is another one of that name.
    """

    def register(average: Average) -> Average:
        RULES.register(name, Rule(split, average, space))
        return average

    return register

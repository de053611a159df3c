"""The server's step: from its own tensors along the update of a round, every group by the run's server optimiser."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from fedpeft.algebra.average import grouped
from fedpeft.algebra.rules.registry import RULES
from fedpeft.algebra.server_optimisers.registry import OPTIMISERS, SQUARE, VELOCITY, Moments, Optimiser, Rates
from fedpeft.algebra.space import Leaves, Report, Space
from fedpeft.common.parallel import parallel_map

Tensors = Mapping[str, Tensor]
RuleOf = Callable[[str], str]


@dataclass(frozen=True)
class _Group:
    """Tensors that move together: their space, their name, and leaf -> path."""

    space: Space
    name: str
    paths: Mapping[str, str]

    def leaves(self, tensors: Tensors, prefix: str = "") -> Leaves:
        return {leaf: tensors[prefix + path] for leaf, path in self.paths.items()}

    def named(self, leaves: Leaves, prefix: str = "") -> dict[str, Tensor]:
        return {prefix + self.paths[leaf]: tensor for leaf, tensor in leaves.items()}


def moments_at_start(tensors: Tensors, rule_of: RuleOf, optimiser: str, rates: Rates) -> dict[str, Tensor]:
    """Return the moments before the first round, float32: "velocity/<path>" zero, "square/<group>" tau^2.

    Args:
        tensors: path -> the server's own tensor, of all that the method may train.
        rule_of: path -> averaging rule.
        optimiser: name of the server optimiser.
        rates: its constants.

    Raises:
        ValueError: an averaging rule cannot take such steps, or the optimiser is unknown.
    """
    keeps = OPTIMISERS.find(optimiser).keeps
    found: dict[str, Tensor] = {}
    for group in _groups(tensors, rule_of):
        leaves = group.leaves(tensors)
        if VELOCITY in keeps:
            found |= group.named(group.space.at_rest(leaves), f"{VELOCITY}/")
        if SQUARE in keeps:
            found[f"{SQUARE}/{group.name}"] = group.space.no_square(leaves) + rates.tau**2
    return found


def stepped(
    before: Tensors, average: Tensors, moments: Tensors, rule_of: RuleOf, optimiser: str, rates: Rates
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Report]]:
    """Return the server's tensors after its step, their moments, and what truncating the products lost.

    Tensors that are not in ``average``, which the round did not train, have no step: they and their moments stay.

    Args:
        before: path -> the server's own tensor before the round, for the paths of ``average`` at least.
        average: path -> the sites' average of the round.
        moments: see `moments_at_start`.
        rule_of: path -> averaging rule.
        optimiser: name of the server optimiser.
        rates: its constants.

    Returns:
        Path -> tensor under the keys of ``average``; all moments; group of products -> report.

    Raises:
        ValueError: see `moments_at_start`; a moment is missing; a result is not finite, with the group's name in front.
    """
    groups = _groups(average, rule_of)
    work = partial(_group_stepped, before, average, moments, OPTIMISERS.find(optimiser), rates)
    after: dict[str, Tensor] = {}
    kept, reports = dict(moments), dict[str, Report]()
    for group, (tensors, of_group, report) in zip(groups, parallel_map(work, groups), strict=True):
        after |= tensors
        kept |= of_group
        reports |= {group.name: report} if report else {}
    return {path: after[path] for path in average}, kept, reports


def _groups(tensors: Tensors, rule_of: RuleOf) -> list[_Group]:
    """Return the groups of tensors, in their order."""
    found = []
    for (rule, name), paths in grouped(tensors, rule_of).items():
        space = RULES[rule].space
        if space is None:
            raise ValueError(f"{name}: averaging rule {rule!r} takes no steps; use --server-optimiser average")
        found.append(_Group(space, name, paths))
    return found


def _group_stepped(
    before: Tensors, average: Tensors, moments: Tensors, optimiser: Optimiser, rates: Rates, group: _Group
) -> tuple[dict[str, Tensor], dict[str, Tensor], Report]:
    """Return the tensors, moments and report of one group."""
    space, last = group.space, group.leaves(before)
    try:
        model = space.model(last)
        update = space.model(group.leaves(average)) + -1.0 * model
        change, leaving = optimiser.step(update, _entering(group, moments, optimiser), rates)
        leaves, report = space.leaves(model + change, last)
        kept: dict[str, Tensor] = {}
        if VELOCITY in leaving:
            resting = group.leaves(moments, f"{VELOCITY}/")
            kept |= group.named(space.leaves(leaving[VELOCITY], resting)[0], f"{VELOCITY}/")
        if SQUARE in leaving:
            kept[f"{SQUARE}/{group.name}"] = leaving[SQUARE].float()
        return group.named(leaves), kept, report
    except ValueError as error:
        raise ValueError(f"{group.name}: {error}") from error


def _entering(group: _Group, moments: Tensors, optimiser: Optimiser) -> Moments:
    """Return the moments with which a group enters the round, in the form that optimisers take."""
    try:
        found: Moments = {}
        if VELOCITY in optimiser.keeps:
            found[VELOCITY] = group.space.model(group.leaves(moments, f"{VELOCITY}/"))
        if SQUARE in optimiser.keeps:
            found[SQUARE] = moments[f"{SQUARE}/{group.name}"]
        return found
    except KeyError as error:
        raise ValueError(f"the server's moment {error} is missing; restore the run folder, or begin anew") from error

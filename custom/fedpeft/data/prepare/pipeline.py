"""From a source's cases to folders of sites: choose missing splits, distribute the cases, then call the writer."""

from dataclasses import dataclass, replace
from pathlib import Path

from fedpeft.common.folders import refuse_existing
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.partition import NATURAL, PARTITIONS, partition
from fedpeft.data.prepare.staging import Prepared, Progress, empty_training, no_progress
from fedpeft.data.prepare.writer import write_folder
from fedpeft.data.splits import draw_splits, draw_validation


@dataclass(frozen=True)
class Choices:
    """What the user chooses.

    Attributes:
        validation: for a source with splits, the share of each site's training groups that become validation; None:
            none do.
        partition: "natural", the source's own sites, or a name in ``partition.PARTITIONS``.
        sites: number of sites of that partition.
        alpha: skew of that partition, see ``partition.Partition``.
        seed: seed of every random choice.
    """

    validation: float | None = None
    partition: str = NATURAL
    sites: int = 0
    alpha: float = 0.5
    seed: int = 0


def prepare(
    found: Found, out: str | Path, choices: Choices | None = None, progress: Progress = no_progress
) -> Prepared:
    """Choose missing splits, distribute the cases to sites, and write one folder per site.

    Args:
        found: what the source holds.
        out: folder to make; it is complete or absent, see ``writer``.
        choices: what the user chose; None: the defaults.
        progress: see ``staging``.

    Raises:
        FileExistsError: ``out`` exists and is not empty.
        FaultError: the source is faulty; all faults are listed, nothing is written.
        ValueError: a choice is out of range.
    """
    refuse_existing(out)
    choices = choices or Choices()
    if choices.seed < 0:
        raise ValueError(f"seed is {choices.seed}, expected 0 or more")
    cases, faults = _with_splits(found, choices)
    notes = list(found.notes)
    # The partition depends on all cases, so it would mean nothing if some were faulty.
    if choices.partition != NATURAL and not found.faults and not faults:
        alpha = f", alpha {choices.alpha:g}" if PARTITIONS[choices.partition].skewed else ""
        how = f"{choices.partition}{alpha}, seed {choices.seed}"
        kept = any(case.split for case in found.cases)
        splits = "each kept its split" if kept else "their splits were drawn before"
        cases = partition(cases, choices.partition, choices.sites, choices.alpha, choices.seed)
        notes.append(f"{len(cases)} cases dealt out to {choices.sites} sites ({how}); {splits}")
    # A site that could not be split has no training case either.
    faults = faults or empty_training(cases)
    return write_folder(replace(found, cases=cases, faults=[*found.faults, *faults], notes=notes), out, progress)


def _with_splits(found: Found, choices: Choices) -> tuple[list[FoundCase], list[str]]:
    if any(case.split for case in found.cases) or not found.cases:
        if choices.validation is None:
            return found.cases, []
        return draw_validation(found.cases, choices.validation, choices.seed)
    if choices.validation is not None:
        raise ValueError(f"{found.source}: has no splits, of which --validation takes a share; leave it out")
    return draw_splits(found.cases, choices.seed)

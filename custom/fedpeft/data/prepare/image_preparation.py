"""From what a source of pictures holds to folders of sites: splits where it has none, then who has which case."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fedpeft.common.folders import refuse_existing
from fedpeft.data.grouped import draw_splits, draw_validation
from fedpeft.data.partition import NATURAL, PARTITIONS, partition
from fedpeft.data.prepare.image_writing import Picture, write_pictures
from fedpeft.data.prepare.staging import Prepared, Progress, empty_training, no_progress

ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass
class Found:
    """What a source holds.

    Attributes:
        source: folder or table, for messages.
        dataset: name of the data set's row.
        labels: names of the classes in the order of their indices.
        pictures: either all with a split or all without.
        faults: one sentence each.
        notes: what a person should know, one sentence each.
    """

    source: Path
    dataset: str
    labels: Sequence[str]
    pictures: list[Picture] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Choices:
    """What a person chooses.

    Attributes:
        validation: share of each site's training groups that become validation; None: none do. Of a source with splits.
        partition: "natural", the source's own sites, or a name in ``partition.PARTITIONS``.
        sites: of that partition.
        alpha: of that partition.
        seed: of everything that is drawn.
    """

    validation: float | None = None
    partition: str = NATURAL
    sites: int = 0
    alpha: float = 0.5
    seed: int = 0


def prepare_pictures(found: Found, out: str | Path, choices: Choices, progress: Progress = no_progress) -> Prepared:
    """Draw what splits are missing, deal the cases out, and write one folder a site, see ``write_pictures``.

    Raises:
        FileExistsError: ``out`` exists and is not empty.
        FaultError: the source is faulty; all faults are listed, nothing is written.
        ValueError: a choice is out of range.
    """
    refuse_existing(out)
    if choices.seed < 0:
        raise ValueError(f"seed is {choices.seed}, expected 0 or more")
    pictures, faults = _with_splits(found, choices)
    notes = list(found.notes)
    # Which site a case goes to depends on all of them: where some are faulty it would say nothing.
    if choices.partition != NATURAL and not found.faults and not faults:
        alpha = f", alpha {choices.alpha:g}" if PARTITIONS[choices.partition].skewed else ""
        how = f"{choices.partition}{alpha}, seed {choices.seed}"
        pictures = partition(pictures, choices.partition, choices.sites, choices.alpha, choices.seed)
        notes.append(f"{len(pictures)} cases dealt out to {choices.sites} sites ({how}); each kept its split")
    # A site that could not be split has no training case either.
    faults = faults or empty_training([(picture.site, picture.split) for picture in pictures])
    return write_pictures(
        pictures, found.labels, found.dataset, out,
        source=found.source, faults=[*found.faults, *faults], notes=notes, progress=progress,
    )  # fmt: skip


def sorted_labels(names: Iterable[str]) -> list[str]:
    """Different names in order, numbers by their value and before words."""
    return sorted(set(names), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def index_of(text: str, labels: Sequence[str]) -> int | None:
    """The class that a name, or an index as text, stands for; None if it is none of the labels."""
    if text in labels:
        return labels.index(text)
    return int(text) if text.isdecimal() and int(text) < len(labels) else None


def with_names(pictures: Sequence[tuple[Picture, str]]) -> list[Picture]:
    """Name cases by their files, or by their whole paths below the source if files in several folders share a name.

    Args:
        pictures: each with its path below the source, with forward slashes.
    """
    stems = {PurePosixPath(path).stem for _, path in pictures}
    if len(stems) == len(pictures):
        return [replace(picture, case=PurePosixPath(path).stem) for picture, path in pictures]
    return [replace(picture, case="-".join(PurePosixPath(path).with_suffix("").parts)) for picture, path in pictures]


def _with_splits(found: Found, choices: Choices) -> tuple[list[Picture], list[str]]:
    if all(picture.split for picture in found.pictures):
        if choices.validation is None:
            return found.pictures, []
        return draw_validation(found.pictures, choices.validation, choices.seed)
    if choices.validation is not None:
        raise ValueError(f"{found.source}: has no splits, of which --validation takes a share; leave it out")
    return draw_splits(found.pictures, choices.seed)

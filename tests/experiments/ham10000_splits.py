"""Which image of HAM10000 may be seen by whom: pure functions of the manifest.

No lesion is on two sides of anything: pretraining and evaluation, training and test, two centres.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fedpeft.data.found import FoundCase
from fedpeft.data.partition import partition
from fedpeft.data.sources.image_table import ImageColumns, find_in_table
from fedpeft.data.splits import draw_validation, target_of, units_of

# Pretrains the medical model and is left out of everything else. 94 % of its images are of one class, as an evaluated
# site its balanced accuracy would rest on fifteen; without it every class stays at two centres or more.
PRETRAINING = "centre-1"
COLUMNS = ImageColumns(image="image", label="dx", site="center", group="lesion_id")
# A class with fewer lesions has too few for training, validation and test of three centres.
LEAST = 20
TEST, VALIDATION = 0.3, 0.2


def read_manifest(source: Path) -> tuple[list[FoundCase], list[str]]:
    """All images, without splits, and the names of their classes.

    Raises:
        ValueError: the manifest is faulty.
    """
    found = find_in_table(source, source / "manifest.csv", COLUMNS)
    if found.faults:
        raise ValueError(f"{source}/manifest.csv: {found.faults[0]}")
    return [replace(item, site=f"centre-{item.site}") for item in found.cases], list(found.labels)


def pretraining(images: Sequence[FoundCase], centre: str = PRETRAINING) -> list[FoundCase]:
    """Every picture of the centre that pretrains, for training."""
    return [replace(item, split="training") for item in images if item.site == centre]


def evaluated(
    images: Sequence[FoundCase], labels: Sequence[str], centre: str = PRETRAINING, least: int = LEAST
) -> tuple[list[FoundCase], list[str]]:
    """What methods are compared on, and its classes.

    The pretraining centre goes, with every lesion that it has seen; so do lesions that several other centres have, and
    classes of fewer than ``least`` lesions.
    """
    seen = {item.group for item in images if item.site == centre}
    own = [item for item in images if item.site != centre and item.group not in seen]
    sites = {group: {item.site for item in own if item.group == group} for group in {item.group for item in own}}
    own = [item for item in own if len(sites[item.group]) == 1]
    lesions = [target_of(unit) for unit in units_of(own)]
    kept = [index for index in range(len(labels)) if lesions.count(index) >= least]
    return (
        [replace(item, target=kept.index(item.target)) for item in own if item.target in kept],
        [labels[index] for index in kept],
    )


def natural(images: Sequence[FoundCase], seed: int) -> list[FoundCase]:
    """Splits of every centre, stratified by class: 30 % of the lesions test, 14 % validation, the others train."""
    tested = _take([replace(item, split="training") for item in images], "test", TEST, seed)
    return _take(tested, "validation", VALIDATION, seed)


def iid(images: Sequence[FoundCase], seed: int) -> list[FoundCase]:
    """The same splits dealt out at random to as many sites."""
    return partition(images, "iid", len({item.site for item in images}), 1.0, seed)


PARTITIONS: dict[str, Callable[[Sequence[FoundCase], int], list[FoundCase]]] = {
    "natural": lambda images, seed: list(images),
    "iid": iid,
}


def left_out(images: Sequence[FoundCase], centre: str) -> tuple[list[FoundCase], list[FoundCase]]:
    """The other centres with their splits, and all of this centre's images for the test."""
    others = [item for item in images if item.site != centre]
    return others, [replace(item, split="test") for item in images if item.site == centre]


def _take(images: Sequence[FoundCase], split: str, share: float, seed: int) -> list[FoundCase]:
    """Move a share of each centre's training lesions to another split."""
    kept = [item for item in images if item.split != "training"]
    moved, faults = draw_validation([item for item in images if item.split == "training"], share, seed)
    if faults:
        raise ValueError(f"images cannot be split: {faults[0]}")
    return kept + [replace(item, split=split if item.split == "validation" else item.split) for item in moved]

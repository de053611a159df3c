"""Is a folder of pictures fit for training? Are they readable, which classes are where, is anything in two splits?"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpeft.data.datalist import DATALIST, SPLITS, Case, Site
from fedpeft.data.images.images import read_picture

# Names of a message's list; the others are counted.
SHOWN = 5


@dataclass(frozen=True)
class PictureSummary:
    """What a site has.

    Attributes:
        site: name.
        cases: number by split.
        shape: smallest and largest height and width in pixels, of the readable pictures.
        classes: label -> split -> number of cases.
    """

    site: str
    cases: dict[str, int]
    shape: tuple[tuple[int, ...], tuple[int, ...]]
    classes: dict[str, dict[str, int]]


def check_pictures(
    site: Site, before_read: Callable[[Case], None]
) -> tuple[PictureSummary, list[str], list[str], dict[Path, str]]:
    """Read every picture of a site.

    Args:
        site: of classification.
        before_read: called with each case before its file is read.

    Returns:
        A summary, faults, warnings, and the SHA-256 of every readable picture.
    """
    faults, fingerprints, shapes = [], {}, [(0, 0)]
    for split in SPLITS:
        for case in site.splits[split]:
            before_read(case)
            if not case.labelled and split != "test":
                faults.append(f"{case.image}: has no label in the datalist, expected one for {split}")
            try:
                shapes.append(tuple(read_picture(case.image).shape[1:]))
                fingerprints[case.image] = hashlib.sha256(case.image.read_bytes()).hexdigest()
            except (FileNotFoundError, ValueError) as error:
                faults.append(str(error))
    sizes = list(zip(*(shapes[1:] or shapes), strict=True))
    summary = PictureSummary(
        site=site.name,
        cases={split: len(site.splits[split]) for split in SPLITS},
        shape=(tuple(map(min, sizes)), tuple(map(max, sizes))),
        classes=_classes(site),
    )
    empty = {split: f"{site.root / DATALIST}: {split} is empty" for split in SPLITS if not site.splits[split]}
    faults += [empty.pop("training")] if "training" in empty else []
    return summary, faults, [*empty.values(), *_never_trained(site)], fingerprints


def shared_by_splits(sites: Sequence[Site], fingerprints: Mapping[Path, str]) -> list[str]:
    """Warnings where pictures, or pictures of one group, are on both sides of a test, at any site.

    Args:
        sites: all of a folder.
        fingerprints: SHA-256 of readable pictures by file; files without one are passed over.
    """
    cases = [(split, case) for site in sites for split in SPLITS for case in site.splits[split]]
    by_bytes = _by_key((fingerprints.get(case.image, ""), split, case) for split, case in cases)
    by_group = _by_key((case.group, split, case) for split, case in cases)
    warnings = []
    for what, found in (("the same file as", by_bytes), ("a lesion or patient of", by_group)):
        for other in ("training", "validation"):
            both = [names for names in found.values() if names["test"] and names[other]]
            if both:
                test = sum(len(names["test"]) for names in both)
                pairs = ", ".join(f"{names['test'][0]} and {names[other][0]}" for names in both[:SHOWN])
                more = f" and {len(both) - SHOWN} more" if len(both) > SHOWN else ""
                warnings.append(f"{test} test cases show {what} a {other} case: {pairs}{more}")
    return warnings


def _by_key(found: Iterable[tuple[str, str, Case]]) -> dict[str, dict[str, list[str]]]:
    """Names of cases by what they show and by split; what is "" is left out."""
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: {split: [] for split in SPLITS})
    for key, split, case in found:
        if key:
            names[key][split].append(f"{case.site}/{case.case}")
    return names


def _classes(site: Site) -> dict[str, dict[str, int]]:
    counts = {split: Counter(case.target for case in site.splits[split]) for split in SPLITS}
    return {name: {split: counts[split][index] for split in SPLITS} for index, name in site.labels.items()}


def _never_trained(site: Site) -> list[str]:
    """A site's own model cannot know a class of its test cases that it has never seen."""
    counts = _classes(site)
    missing = [name for name, by_split in counts.items() if by_split["test"] and not by_split["training"]]
    return [f"{site.name}: test cases but no training case of {', '.join(missing)}"] if missing else []

"""Checks of images: whether they are readable, which classes each split has, and what occurs in two splits."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpeft.common.faults import counted
from fedpeft.config.datasets import Preprocessing
from fedpeft.data.datalist import SPLITS, Case, Site
from fedpeft.data.images.images import read_image
from fedpeft.data.summary import Summary, extremes, span

# A message lists this many pairs and counts the others.
SHOWN = 5

# Height and width in pixels.
Size = tuple[int, ...]


@dataclass(frozen=True)
class ImageSummary(Summary):
    """What a site of images has.

    Attributes:
        classes: label -> split -> number of cases.
    """

    classes: dict[str, dict[str, int]]

    def columns(self) -> list[tuple[str, str]]:
        """Sizes and classes."""
        classes = [(name, "/".join(map(str, counts.values()))) for name, counts in self.classes.items()]
        return [("pixels H W", span(*self.shape)), *classes]


def inspect(case: Case, site: Site, preprocessing: Preprocessing) -> tuple[Size | None, list[str]]:
    """Height and width of an image, None if it cannot be read, and its faults."""
    try:
        return tuple(read_image(case.image).shape[1:]), []
    except (FileNotFoundError, ValueError) as error:
        return None, [str(error)]


def findings(site: Site, facts: Mapping[Case, Size], preprocessing: Preprocessing) -> tuple[list[str], list[str]]:
    """No faults, and a warning about test cases whose class the site has no training case of."""
    counts = _classes(site)
    missing = [name for name, by_split in counts.items() if by_split["test"] and not by_split["training"]]
    return [], [f"{site.name}: test cases but no training case of {', '.join(missing)}"] if missing else []


def summary(site: Site, facts: Mapping[Case, Size]) -> ImageSummary:
    """Summarise a site that has at least one case with facts."""
    return ImageSummary(
        site=site.name,
        cases={split: len(site.splits[split]) for split in SPLITS},
        shape=extremes(list(facts.values())),
        classes=_classes(site),
    )


def repeated(sites: Sequence[Site], fingerprints: Mapping[Path, str]) -> tuple[list[str], list[str]]:
    """Warnings about images, or groups, that are in test and also in training or validation, at any site."""
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
                shown = counted(test, "test case shows", "test cases show")
                warnings.append(f"{shown} {what} a {other} case: {pairs}{more}")
    return [], warnings


def _by_key(found: Iterable[tuple[str, str, Case]]) -> dict[str, dict[str, list[str]]]:
    """Names of cases by key and split; an empty key is left out."""
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: {split: [] for split in SPLITS})
    for key, split, case in found:
        if key:
            names[key][split].append(f"{case.site}/{case.case}")
    return names


def _classes(site: Site) -> dict[str, dict[str, int]]:
    counts = {split: Counter(case.target for case in site.splits[split]) for split in SPLITS}
    return {name: {split: counts[split][index] for split in SPLITS} for index, name in site.labels.items()}

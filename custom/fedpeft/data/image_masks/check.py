"""Checks of images with masks: readable files, sizes, values of masks, and what occurs in two splits."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedpeft.config.preprocessing import Preprocessing
from fedpeft.data.datalist import SPLITS, Case, Site
from fedpeft.data.image_masks.masks import read_mask
from fedpeft.data.image_masks.prepare import inspect_files
from fedpeft.data.images.check import repeated
from fedpeft.data.images.images import glance as image_glance
from fedpeft.data.summary import Summary, extremes, span

__all__ = ["findings", "glance", "inspect", "repeated", "summary"]


def glance(case: Case, preprocessing: Preprocessing) -> tuple[int, list[str]]:
    """1, the number of a case's images, or 0 and the faults: the image's header, and the whole of the small mask."""
    found, faults = image_glance(case, preprocessing)
    try:
        if case.label is not None:
            read_mask(case.label)
    except (ValueError, OSError) as error:
        return 0, [*faults, str(error)]
    return found, faults


@dataclass(frozen=True)
class MaskSummary(Summary):
    """What a site of images with masks has.

    Attributes:
        share: mean share of a mask's pixels by label name, without the background.
    """

    share: dict[str, float]

    def columns(self) -> list[tuple[str, str]]:
        """Sizes and labels."""
        return [
            ("pixels H W", span(*self.shape)),
            ("labels, % of pixels", ", ".join(f"{name} {100 * share:.2f}" for name, share in self.share.items())),
        ]


@dataclass(frozen=True)
class Facts:
    """What is remembered of a case: height and width, and the share of each label where it has a mask."""

    shape: tuple[int, ...]
    share: dict[int, float] | None


def inspect(case: Case, site: Site, preprocessing: Preprocessing) -> tuple[Facts | None, list[str]]:
    """Facts about a case, None if a file is faulty, and its faults."""
    size, mask, faults = inspect_files(case, site.labels)
    if size is None or faults:
        return None, faults
    share = None if mask is None else {index: float((mask == index).mean()) for index in site.labels if index}
    return Facts(size, share), []


def findings(site: Site, facts: Mapping[Case, Facts], preprocessing: Preprocessing) -> tuple[list[str], list[str]]:
    """No faults, and a warning about masks without foreground."""
    empty = [case.case for case, known in facts.items() if known.share and not any(known.share.values())]
    text = f"{site.name}: {len(empty)} of {len(facts)} cases: no foreground, so the Dice of the case is 1 or 0"
    return [], [f"{text}: {', '.join(empty)}"] if empty else []


def summary(site: Site, facts: Mapping[Case, Facts]) -> MaskSummary:
    """Summarise a site that has at least one case with facts."""
    shares = [known.share for known in facts.values() if known.share is not None]
    return MaskSummary(
        site=site.name,
        cases={split: len(site.splits[split]) for split in SPLITS},
        shape=extremes([known.shape for known in facts.values()]),
        share={
            name: float(np.mean([share[index] for share in shares])) if shares else 0.0
            for index, name in site.labels.items()
            if index
        },
    )

"""The modalities, volumes, images and images with masks: what differs when a folder is prepared or checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedpeft.common.registry import Registry
from fedpeft.config.preprocessing import Preprocessing
from fedpeft.data.datalist import Case, Site
from fedpeft.data.entries import CLASSIFICATION, IMAGE_SEGMENTATION, SEGMENTATION
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.image_masks import check as mask_check
from fedpeft.data.image_masks import prepare as mask_prepare
from fedpeft.data.images import check as image_check
from fedpeft.data.images import images
from fedpeft.data.images import prepare as image_prepare
from fedpeft.data.summary import Summary
from fedpeft.data.volumes import check as volume_check
from fedpeft.data.volumes import header as volume_header
from fedpeft.data.volumes import prepare as volume_prepare
from fedpeft.data.volumes.normalise import Statistics


class Prepare(Protocol):
    """What ``prepare/writer.py`` asks of a modality; a module implements it."""

    def refuse_others(self, found: Found) -> None:
        """Raise a ValueError if the cases are of another modality than the data set."""

    def files_of(self, case: FoundCase) -> Sequence[Path]:
        """The files of a case."""

    def files_for_statistics(self, found: Found) -> Sequence[Path]:
        """The files that ``statistics`` reads, for the progress."""

    def inspect(self, case: FoundCase, found: Found) -> list[str]:
        """Read a case completely and return its faults, one sentence each."""

    def copy(self, case: FoundCase, folder: Path, found: Found) -> tuple[Case, bool]:
        """Copy a case into its site's folder; also returns whether its label was changed by merging."""

    def statistics(
        self, training: Sequence[Case], found: Found, before_read: Callable[[Case], None]
    ) -> Statistics | None:
        """Statistics of a site's training cases; None if each case is normalised by itself."""


class Check(Protocol):
    """What ``check.py`` asks of a modality; a module implements it. Facts are what it remembers of a case."""

    def inspect(self, case: Case, site: Site, preprocessing: Preprocessing) -> tuple[Any, list[str]]:
        """Facts about a case, None if it cannot be read, and its faults."""

    def findings(
        self, site: Site, facts: Mapping[Case, Any], preprocessing: Preprocessing
    ) -> tuple[list[str], list[str]]:
        """Faults of a site as a whole, and warnings about unusual cases."""

    def summary(self, site: Site, facts: Mapping[Case, Any]) -> Summary:
        """Summarise a site that has at least one case with facts."""

    def repeated(self, sites: Sequence[Site], fingerprints: Mapping[Path, str]) -> tuple[list[str], list[str]]:
        """Faults and warnings about cases that occur twice, given the SHA-256 of every readable image."""


class Glance(Protocol):
    """A look at a case's headers, before a training that would fail at a file after hours."""

    def __call__(self, case: Case, preprocessing: Preprocessing) -> tuple[int, list[str]]:
        """Number of the case's slices or images, 0 if it cannot be told, and its faults, one sentence each."""


def missing(case: Case, preprocessing: Preprocessing) -> tuple[int, list[str]]:
    """The files of a case that do not exist: all that can be said where headers are not known."""
    files = [file for file in (case.image, case.label) if file is not None and not file.is_file()]
    return 0, [f"{file}: not found; restore it, or prepare the data again" for file in files]


@dataclass(frozen=True)
class Modality:
    """What differs between the modalities when a folder is prepared or checked."""

    prepare: Prepare
    check: Check
    glance: Glance = missing


MODALITIES: Registry[Modality] = Registry("task")
MODALITIES.register(SEGMENTATION, Modality(volume_prepare, volume_check, volume_header.glance))
MODALITIES.register(CLASSIFICATION, Modality(image_prepare, image_check, images.glance))
MODALITIES.register(IMAGE_SEGMENTATION, Modality(mask_prepare, mask_check, mask_check.glance))


def modality(task: str) -> Modality:
    """The modality of a task's cases; ValueError if there is none."""
    return MODALITIES.find(task)

"""What a source passes to the preparation: the cases that it found, volumes or images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# How a fault of a label's values goes on after the name of the file; most cases of a source have the same one.
VALUES = ": label values "


@dataclass(frozen=True)
class FoundCase:
    """One case of a source.

    Attributes:
        site: name of the site's folder to make.
        case: name of the case, unique within its site.
        image: NIfTI, JPEG or PNG file; it is copied unchanged, but for ``channel``.
        label: NIfTI file of a volume's labels, or PNG file of an image's; None for an image of one class.
        target: index of an image's class; None where there is a label file.
        split: "training", "validation" or "test"; None if the source does not say.
        group: lesion or patient that the case shows; None if unknown.
        names: file names of a volume's image and label in the folder of the case.
        channel: index along the fourth axis of a volume's image, which alone is copied; None: it has three axes.
    """

    site: str
    case: str
    image: Path
    label: Path | None = None
    target: int | None = None
    split: str | None = None
    group: str | None = None
    names: tuple[str, str] = ("image.nii.gz", "label.nii.gz")
    channel: int | None = None


@dataclass
class Found:
    """What a source holds.

    Attributes:
        source: folder or table, for messages.
        dataset: name of the data set, an entry of ``fedpeft.config.datasets``.
        labels: names in the order of their indices; in segmentation the first is the background.
        cases: either all with a split or all without.
        faults: what is wrong with the source, one sentence each.
        notes: what a person should know, one sentence each.
        merge: label value in the files -> index that replaces it.
        naming: what gives names to further label values, for messages; "" if the source's labels are fixed.
    """

    source: Path
    dataset: str
    labels: Sequence[str]
    cases: list[FoundCase] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    merge: Mapping[int, int] = field(default_factory=dict)
    naming: str = ""


def spelled(merge: Mapping[int, int]) -> str:
    """A mapping of label values in words, such as "5, 9 become 0; 6 becomes 5"; values that stay are left out."""
    by_index: dict[int, list[int]] = {}
    for value, index in sorted(merge.items()):
        if value != index:
            by_index.setdefault(index, []).append(value)
    return "; ".join(
        f"{', '.join(map(str, values))} {'becomes' if len(values) == 1 else 'become'} {index}"
        for index, values in sorted(by_index.items())
    )

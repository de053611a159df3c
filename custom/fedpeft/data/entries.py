"""Validation of ``datalist.json``, which may come from elsewhere: every entry is checked, and all faults are listed."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo

from fedpeft.config.tasks import task
from fedpeft.data.volumes.normalise import Statistics

SEGMENTATION, CLASSIFICATION, IMAGE_SEGMENTATION = "segmentation", "classification", "image_segmentation"
# Labels of volumes are stored in 8 bits.
MOST_LABELS = 256
# A message lists this many faults and counts the others.
SHOWN = 20


class DatalistError(ValueError):
    """Everything that is wrong with a datalist.

    Attributes:
        faults: one sentence per fault, each naming file and entry.
    """

    def __init__(self, file: Path, faults: Sequence[str]) -> None:
        """Make a message of one line for one fault, and a list for several."""
        self.faults = tuple(faults)
        shown = [*self.faults[:SHOWN], *([f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else [])]
        super().__init__(shown[0] if len(shown) == 1 else "\n  ".join((f"{file}: {len(faults)} faults", *shown)))


def path_fault(relative: Any) -> str:
    """The fault of a path in a file from elsewhere; "" if the path stays below the file's folder."""
    path = PurePosixPath(relative) if isinstance(relative, str) else None
    if path is None or path.is_absolute() or ".." in path.parts or "\\" in relative or not path.parts:
        return f"path is {relative!r}, expected one relative to the file without '..'"
    return ""


def _inside(relative: Any) -> str:
    if fault := path_fault(relative):
        raise ValueError(fault)
    return str(relative)


def _index(label: Any, info: ValidationInfo) -> int | None:
    """Check that a label is None or an index of the label table in the context, where that table is valid."""
    labels = (info.context or {}).get("labels")
    if label is not None and labels and (type(label) is not int or label not in labels):
        raise ValueError(f"label is {label!r}, expected an index of the table {labels}")
    return label


def _labels(table: Any, info: ValidationInfo) -> dict[int, str]:
    try:
        labels = {int(index): str(name) for index, name in table.items()}
    except (AttributeError, ValueError):
        first = "background" if task((info.context or {})["task"]).background else "..."
        raise ValueError(f"labels are {table!r}, expected {{'0': '{first}', '1': ...}}") from None
    if sorted(labels) != list(range(len(labels))) or not 2 <= len(labels) <= MOST_LABELS:
        raise ValueError(f"label indices are {sorted(labels)}, expected 2 to 256, from 0 without a gap")
    return dict(sorted(labels.items()))


def _statistics(values: Any) -> Statistics | None:
    return None if values is None else Statistics.from_dict(values)


Inside = Annotated[str, BeforeValidator(_inside)]
# The context of the validation names the task.
LabelTable = Annotated[dict[int, str], BeforeValidator(_labels)]
Text = Annotated[str, BeforeValidator(str)]
Group = Annotated[str, BeforeValidator(lambda group: str(group or ""))]


class VolumeEntry(BaseModel):
    """One volume: paths relative to the datalist."""

    image: Inside
    case: Text
    label: Inside | None = None

    def truth(self, folder: Path) -> dict[str, Any]:
        """What the entry says besides image and name, as fields of a ``Case`` whose datalist is in ``folder``."""
        return {"label": folder / self.label if self.label else None}


class ImageEntry(BaseModel):
    """One image; the label is the index of its class."""

    image: Inside
    case: Text
    label: Annotated[int | None, BeforeValidator(_index)] = None
    group: Group = ""

    def truth(self, folder: Path) -> dict[str, Any]:
        """See ``VolumeEntry.truth``."""
        return {"target": self.label, "group": self.group}


class MaskEntry(VolumeEntry):
    """One image with a mask: paths relative to the datalist."""

    group: Group = ""

    def truth(self, folder: Path) -> dict[str, Any]:
        """See ``VolumeEntry.truth``."""
        return super().truth(folder) | {"group": self.group}


Entry = TypeVar("Entry", VolumeEntry, ImageEntry, MaskEntry)


class Content(BaseModel, Generic[Entry]):
    """A complete datalist; other keys are ignored."""

    name: Text = ""
    labels: Annotated[LabelTable, Field(validate_default=True)] = None  # type: ignore[assignment]
    training: list[Entry] = []
    validation: list[Entry] = []
    test: list[Entry] = []
    statistics: Annotated[Statistics | None, BeforeValidator(_statistics)] = None


CONTENTS: dict[str, type[Content[Any]]] = {
    SEGMENTATION: Content[VolumeEntry],
    CLASSIFICATION: Content[ImageEntry],
    IMAGE_SEGMENTATION: Content[MaskEntry],
}


def read_content(file: Path, content: Any) -> tuple[str, Content[Any]]:
    """A datalist's task, segmentation if it names none, and its validated content.

    Args:
        file: for messages.
        content: of the file, as JSON gives it.

    Raises:
        DatalistError: it is not as described in ``datalist``.
    """
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DatalistError(file, [f"{file}: holds a {kind}, expected an object; prepare the data again"])
    name = SEGMENTATION if content.get("task") is None else content["task"]
    if not isinstance(name, str) or name not in CONTENTS:
        known = " or ".join(CONTENTS)
        raise DatalistError(file, [f"{file}: task is {name!r}, expected {known}; prepare the data again"])
    table = content["labels"] if isinstance(content.get("labels"), dict) else {}
    context = {"task": name, "labels": {int(index): label for index, label in table.items() if index.isdecimal()}}
    try:
        return name, CONTENTS[name].model_validate(content, context=context)
    except ValidationError as error:
        raise DatalistError(file, list(dict.fromkeys(_sentence(file, fault) for fault in error.errors()))) from None


def _sentence(file: Path, error: Mapping[str, Any]) -> str:
    """A fault as a sentence with its file and entry."""
    split, *place = error["loc"]
    where = f"{file}: {split}[{place[0]}]" if place else str(file)
    if (own := error.get("ctx", {}).get("error")) is not None:
        return f"{where}: {own}"
    if not place:
        return f"{file}: {split} is a {type(error['input']).__name__}, expected a list; prepare the data again"
    return f"{where} is {error['input']!r}, expected an object with image, label and case"

"""What a ``datalist.json`` may say, checked entry by entry: the file may come from elsewhere."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fedpeft.config.tasks import TASKS, task

SEGMENTATION, CLASSIFICATION = "segmentation", "classification"
# Labels of volumes are stored in 8 bits.
MOST_LABELS = 256


def read_task(file: Path, name: Any) -> str:
    """The task that a datalist names; segmentation if it names none.

    Raises:
        ValueError: there is no such task.
    """
    if name is not None and name not in TASKS:
        raise ValueError(f"{file}: task is {name!r}, expected {' or '.join(TASKS)}; prepare the data again")
    return name or SEGMENTATION


def read_labels(file: Path, table: Any, task_name: str) -> dict[int, str]:
    """A datalist's label table, index -> name.

    Raises:
        ValueError: it is no table, has a gap, or has too few or too many labels.
    """
    first = "background" if task(task_name).background else "..."
    try:
        labels = {int(index): str(name) for index, name in table.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{file}: labels are {table!r}, expected {{'0': '{first}', '1': ...}}") from error
    if sorted(labels) != list(range(len(labels))) or not 2 <= len(labels) <= MOST_LABELS:
        raise ValueError(f"{file}: label indices are {sorted(labels)}, expected 2 to 256, from 0 without a gap")
    return dict(sorted(labels.items()))


def read_entries(
    file: Path, entries: Any, split: str, task_name: str, labels: Mapping[int, str]
) -> list[dict[str, Any]]:
    """A split's entries as fields of a ``Case``: "case", "image", "label", "target" and "group".

    Args:
        file: the datalist, which paths are relative to.
        entries: what stands under the split's name.
        split: that name, for messages.
        task_name: whether "label" is a file or the index of a class.
        labels: index -> name.

    Raises:
        ValueError: an entry is not as described in ``datalist``; the message names file and entry.
    """
    if not isinstance(entries, list):
        raise ValueError(f"{file}: {split} is a {type(entries).__name__}, expected a list; prepare the data again")
    found = []
    for number, entry in enumerate(entries):
        where = f"{file}: {split}[{number}]"
        if not isinstance(entry, dict) or not {"image", "case"} <= entry.keys():
            raise ValueError(f"{where} is {entry!r}, expected an object with image, label and case")
        label, target = entry.get("label"), None
        if label is not None and task_name == CLASSIFICATION:
            label, target = None, _target(label, labels, where)
        elif label is not None:
            label = inside(file.parent, label, where)
        group = str(entry.get("group") or "") if task_name == CLASSIFICATION else ""
        image = inside(file.parent, entry["image"], where)
        found.append({"case": str(entry["case"]), "image": image, "label": label, "target": target, "group": group})
    return found


def inside(folder: Path, relative: Any, where: str) -> Path:
    """The path below a folder that a file from elsewhere names.

    Raises:
        ValueError: it would lead out of the folder, so that a site would read files that are not meant.
    """
    path = PurePosixPath(relative) if isinstance(relative, str) else None
    if path is None or path.is_absolute() or ".." in path.parts or "\\" in relative or not path.parts:
        raise ValueError(f"{where}: path is {relative!r}, expected one relative to the file without '..'")
    return folder / path


def _target(label: Any, labels: Mapping[int, str], where: str) -> int:
    if not isinstance(label, int) or isinstance(label, bool) or label not in labels:
        raise ValueError(f"{where}: label is {label!r}, expected an index of the table {dict(labels)}")
    return label

"""Any task of the Medical Segmentation Decathlon (Antonelli et al. 2022), as its archive unpacks.

``dataset.json`` lists images and labels by path. It comes from elsewhere, so it is validated, and no path in it may
leave the folder. A task is of one collection: sites come from a table or are made at random.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from fedpeft.common.faults import FaultError, counted
from fedpeft.common.files import read_json
from fedpeft.data.entries import SEGMENTATION, Inside, LabelTable
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.sources.image_tree import ALONE
from fedpeft.data.sources.registry import (
    Source,
    add_partition,
    add_places,
    add_seed,
    add_source,
    add_validation,
    placed,
    register_source,
)
from fedpeft.data.volumes.nifti import suffix_of

NAME = "decathlon"
CONTENT = "dataset.json"
# Characters in the name of a label or a channel.
LONGEST = 100

HELP = (
    "The source is the folder of one task, such as Task04_Hippocampus, with dataset.json, imagesTr and labelsTr. "
    "Labels and their names come from dataset.json. Images without labels (imagesTs) are left out. Of images with "
    "several channels one is taken: --channel gives its number or its name. All cases belong to site-1 unless --table "
    "gives their sites or --sites N deals them out at random. Without splits in the table, each site is split "
    "70 / 10 / 20. All files are read before anything is written, and every fault is listed."
)
EXAMPLES = (
    "fedpeft data prepare decathlon --source Task04_Hippocampus --sites 3 --seed 1 --out data/hippocampus --register",
    "fedpeft data prepare decathlon --source Task01_BrainTumour --channel FLAIR --table sites.csv --out data/brain",
)


def _nifti(path: str) -> str:
    suffix_of(path)
    return path


NiftiPath = Annotated[Inside, AfterValidator(_nifti)]


class Pair(BaseModel):
    """An image and its label, relative to ``dataset.json``."""

    image: NiftiPath
    label: NiftiPath


def _channels(table: Any) -> list[str]:
    numbers = [str(number) for number in range(len(table))] if isinstance(table, dict) else []
    if not numbers or sorted(table, key=str) != sorted(numbers):
        raise ValueError(f"channels are {table!r}, expected {{'0': '...', '1': ...}} without a gap")
    return _words([str(table[number]) for number in numbers])


def _words(names: Iterable[str]) -> list[str]:
    """Names that can be printed on one line."""
    found = list(names)
    for name in found:
        if not (name.isprintable() and 0 < len(name) <= LONGEST):
            raise ValueError(f"name is {name[:LONGEST]!r}, expected 1 to {LONGEST} printable characters")
    return found


def _labels(table: dict[int, str]) -> dict[int, str]:
    return dict(zip(table, _words(table.values()), strict=True))


class Content(BaseModel):
    """What is used of ``dataset.json``; other keys are ignored."""

    labels: Annotated[LabelTable, AfterValidator(_labels)]
    channels: Annotated[list[str], BeforeValidator(_channels), Field(alias="modality")]
    training: Annotated[list[Pair], Field(min_length=1)]
    test: list[Any] = []


def find_decathlon(source: Path, channel: str | None = None) -> Found:
    """The labelled cases of a task.

    Args:
        source: folder of the task.
        channel: number or name of the channel to take; needed where an image has several.

    Returns:
        The cases, all at one site and without splits.

    Raises:
        FileNotFoundError: there is no ``dataset.json``.
        FaultError: ``dataset.json`` is not as published; all faults are listed.
        ValueError: no channel is chosen of several.
    """
    content = _read(source)
    index = _index(content.channels, channel, source)
    found = Found(source, NAME, [content.labels[number] for number in sorted(content.labels)])
    for pair in content.training:
        ends = [suffix_of(pair.image) if index is None else ".nii.gz", suffix_of(pair.label)]
        found.cases.append(
            FoundCase(
                ALONE, _name(pair.image), source / pair.image, source / pair.label,
                names=(f"image{ends[0]}", f"label{ends[1]}"), channel=index,
            )
        )  # fmt: skip
    found.notes += [f"channel {index}, {content.channels[index]}, was taken"] if index is not None else []
    found.notes += [f"{counted(len(content.test), 'image')} without a label left out"] * bool(content.test)
    return found


def _read(source: Path) -> Content:
    file = source / CONTENT
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not found, expected the folder of one task, with {CONTENT}")
    try:
        return Content.model_validate(read_json(file), context={"task": SEGMENTATION})
    except ValidationError as error:
        faults = [f"{CONTENT}: {_sentence(fault)}" for fault in error.errors(include_url=False)]
        raise FaultError(f"{source} cannot be prepared", list(dict.fromkeys(faults))) from None


def _sentence(fault: Mapping[str, Any]) -> str:
    """Pydantic's fault with its place, such as ``training[3].label``."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    own = fault.get("ctx", {}).get("error")
    return f"{where or 'content'}: {own or fault['msg'][:1].lower() + fault['msg'][1:]}"


def _index(channels: Sequence[str], chosen: str | None, source: Path) -> int | None:
    """The chosen channel's index; None where images have no axis of channels."""
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(channels))
    if chosen is None:
        if len(channels) > 1:
            raise ValueError(f"{source}: its images have {len(channels)} channels: {listed}; choose one by --channel")
        return None
    numbers = {str(number): number for number in range(len(channels))}
    by_name = {name.lower(): number for number, name in enumerate(channels)}
    index = numbers.get(chosen, by_name.get(chosen.lower()))
    if index is None:
        raise ValueError(f"--channel is {chosen!r}, expected one of: {listed}")
    return index if len(channels) > 1 else None


def _name(image: str) -> str:
    """The name of a case: its image's without the ending, such as hippocampus_001."""
    return PurePosixPath(image).name.removesuffix(suffix_of(image))


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "folder of one task")
    parser.add_argument(
        "--channel", metavar="C", help="number or name of the channel to take; needed where images have several"
    )
    add_places(parser)
    add_validation(
        parser, "share of each site's training cases to take for validation, at least one, where a table has splits"
    )
    add_partition(parser)
    add_seed(parser, "of every random choice")


register_source(
    Source(
        NAME, HELP, EXAMPLES, _add_options, lambda args: placed(find_decathlon(args.source, args.channel), args)
    )
)  # fmt: skip

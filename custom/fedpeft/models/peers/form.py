"""The registry of the forms in which other programs save adapted models. A new one is one module of this package.

A form says what its files are recognised by, what can be read from their names and shapes, and how their tensors are
called here. Names and shapes alone decide; nothing is executed.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from fedpeft.common.registry import Registry
from fedpeft.config.backbones import BACKBONES, Backbone

Tensors = dict[str, Tensor]

# SAM's sizes by the encoder's width and depth (Kirillov et al. 2023), also where no backbone here has them.
SIZES = {(768, 12): "ViT-B", (1024, 24): "ViT-L", (1280, 32): "ViT-H"}
MASK_TOKENS = "mask_decoder.mask_tokens.weight"
# Estimates a mask's quality; neither the loss nor a prediction uses it.
UNUSED = ("mask_decoder.iou_prediction_head.",)


@dataclass(frozen=True)
class Measured:
    """What names and shapes of a file tell.

    Attributes:
        dim, depth: the image encoder's width and number of blocks.
        classes: classes besides background; None where the file has no output for them.
        image_size: height and width of the input in pixels; None where the file does not tell.
        options: rank, experts: options of the adapters.
    """

    dim: int
    depth: int
    classes: int | None = None
    image_size: int | None = None
    options: Mapping[str, int] | None = None

    @property
    def size(self) -> str:
        """The backbone's size for people: "ViT-B", or width and depth."""
        return SIZES.get((self.dim, self.depth), f"an encoder of width {self.dim} and depth {self.depth}")

    @property
    def backbones(self) -> list[Backbone]:
        """The backbones of this package that have this size."""
        wanted = ("sam", self.dim, self.depth)
        return [entry for entry in BACKBONES.values() if (entry.family, entry.dim, entry.depth) == wanted]


class PeerForm(ABC):
    """The form of another program's files.

    Attributes:
        name: what commands call it.
        title: the program, for people.
        what: what its files are, for people.
        mark: pattern of names that every file of this form has; ``unlike`` one that no file has. No file has the marks
            of two forms.
        methods: our methods whose networks the form can hold, the one that trains least first.
        image_size: pixels at which the authors train, where a file does not tell; 0 where it does.
        parts: prefixes of our names of what a file holds besides adapters.
        data: fields of a run with which its images become what the authors' network sees.
        foundation: whether a file is itself what a run starts from, instead of what was trained from a base.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    what: ClassVar[str] = "an adapter"
    mark: ClassVar[str]
    unlike: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]]
    image_size: ClassVar[int] = 0
    parts: ClassVar[tuple[str, ...]] = ("prompt_encoder.", "mask_decoder.")
    data: ClassVar[Mapping[str, str | int]] = {}
    foundation: ClassVar[bool] = False

    def recognises(self, names: Iterable[str]) -> bool:
        """Whether a file that has these names is of this form."""
        known = list(names)
        others = bool(self.unlike) and any(re.fullmatch(self.unlike, name) for name in known)
        return not others and any(re.fullmatch(self.mark, name) for name in known)

    @abstractmethod
    def measured(self, tensors: Tensors) -> Measured:
        """What the file tells; KeyError or ValueError if it lacks a tensor that every file of this form has."""

    @abstractmethod
    def ours(self, tensors: Tensors) -> Tensors:
        """A file's tensors under our names; a name that the form does not know stays as it is."""

    def theirs(self, tensors: Tensors) -> Tensors:
        """Our tensors under the names of the form.

        Raises:
            NotImplementedError: such files are only read.
        """
        raise NotImplementedError(f"{self.title}'s files are only read")

    @property
    def writes(self) -> bool:
        """Whether files can be written in this form."""
        return type(self).theirs is not PeerForm.theirs

    def wrapped(self, tensors: Tensors, rounds: int) -> dict[str, object]:
        """The content of a file of these tensors after a number of rounds, as the program's own loader expects it."""
        return dict(tensors)

    def remedy(self, file: Path, tensors: Tensors) -> str:
        """How a file of this form is taken, for a message; it names a base where the package ships none of the size."""
        base = "" if self._base_is_shipped(tensors) else "--base SAM.pth "
        return f"import it with: fedpeft import --format {self.name} --file {file} {base}--out RUN"

    def _base_is_shipped(self, tensors: Tensors) -> bool:
        try:
            return any(entry.resource for entry in self.measured(tensors).backbones)
        except (KeyError, ValueError, IndexError):
            return False

    def described(self, found: Measured) -> str:
        """A file for people: "an adapter saved by SAMed for ViT-H, 512 px, rank 4, 8 classes"."""
        pixels = found.image_size or self.image_size
        parts = [found.size, *([f"{pixels} px"] if pixels else [])]
        parts += [f"{name} {value}" for name, value in (found.options or {}).items()]
        if found.classes is not None:
            parts.append(f"{found.classes} class{'es' if found.classes != 1 else ''}")
        return f"{self.what} saved by {self.title} for {', '.join(parts)}"


PEERS: Registry[PeerForm] = Registry("file format", __package__)


def register_peer(form: PeerForm) -> None:
    """Add a form.

    Raises:
        ValueError: there is another one of that name.
    """
    PEERS.register(form.name, form)


def classes_in(tensors: Tensors) -> int:
    """Classes of a mask decoder that has one token for each of them and one for the background."""
    return len(tensors[MASK_TOKENS]) - 1


def encoder_in(tensors: Tensors) -> tuple[int, int, int]:
    """Width, depth and image size of a file that has SAM's image encoder."""
    patches = tensors["image_encoder.patch_embed.proj.weight"]
    blocks = {match[1] for name in tensors if (match := re.match(r"image_encoder\.blocks\.(\d+)\.", name))}
    pixels = tensors["image_encoder.pos_embed"].shape[1] * patches.shape[-1]
    return patches.shape[0], len(blocks), pixels


def renamed(tensors: Tensors, names: Iterable[tuple[str, str]]) -> Tensors:
    """The tensors with pairs of a pattern and its replacement applied in turn to their names."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        found[name] = tensor
    return found

"""Say what a file seems to be, and which command takes it."""

import re
from dataclasses import dataclass
from pathlib import Path

from fedpeft.models.peers.contents import WrongFileError, read_tensors_of
from fedpeft.models.peers.form import PEERS, PeerForm, Tensors


@dataclass(frozen=True)
class Kind:
    """Another kind of file that people mistake for one of the registered forms.

    Attributes:
        mark: pattern of one of its names.
        seems: what it is.
        remedy: what to do with it.
    """

    mark: str
    seems: str
    remedy: str


OTHERS = (
    Kind(
        r".*\.lora\.(.+\.)?[AB]|image_encoder\.fact\..*|.*\.(prompts|bottlenecks|ia3|slices)\..*",
        "the tensors of a fedpeft run",
        "they need no import; use the run folder that holds them, with --run FOLDER",
    ),
    Kind(
        r"base_model\.model\..*",
        "an adapter of Hugging Face's peft",
        "no method here has its layers; give a file that FLAP-SAM, SAMed, MA-SAM or MedSAM saved",
    ),
    Kind(
        r"fati_qa|sa_a_\d+",
        "SAMed's variant with LoRA in the mask decoder",
        "no method here trains that; give a file of SAMed with LoRA in the encoder alone",
    ),
    Kind(
        r"image_encoder\.patch_embed\.proj\.weight",
        "a foundation model's own checkpoint, from which others are trained",
        "it needs no import; give it as --base, with the file that was trained from it as --file",
    ),
)


def form_of(tensors: Tensors) -> PeerForm | None:
    """The form of a file that has these names; None if no registered form has them."""
    return next((form for form in PEERS.values() if form.recognises(tensors)), None)


def refuse_other(file: Path, tensors: Tensors, expected: PeerForm) -> None:
    """Check that a file is of the expected form.

    Raises:
        WrongFileError: it is not; the message says what it seems to be and which command takes it.
    """
    found = form_of(tensors)
    if found is expected:
        return
    if found:
        raise WrongFileError(file, described(found, tensors), found.remedy(file, tensors))
    for kind in OTHERS:
        if any(re.fullmatch(kind.mark, name) for name in tensors):
            raise WrongFileError(file, kind.seems, kind.remedy)
    first = ", ".join(map(repr, list(tensors)[:3]))
    known = ", ".join(form.title for form in PEERS.values())
    raise WrongFileError(
        file,
        f"the weights of another network: the first of its {len(tensors)} tensors are {first}",
        f"give a file that {known} saved",
    )


def described(form: PeerForm, tensors: Tensors) -> str:
    """A file of a form for people, with what its names and shapes tell."""
    try:
        return form.described(form.measured(tensors))
    except (KeyError, ValueError, IndexError):
        return f"{form.what} saved by {form.title}, incomplete"


def hint(file: Path) -> str:
    """What a user is told who gave ``file`` as a checkpoint; "" if it is no file with another program's adapters."""
    try:
        tensors, _ = read_tensors_of(file)
        form = form_of(tensors)
        adapted = form is not None and form.measured(tensors).options
    except (OSError, ValueError, KeyError, IndexError):
        return ""
    return f". It seems to be {described(form, tensors)}; {form.remedy(file, tensors)}" if form and adapted else ""

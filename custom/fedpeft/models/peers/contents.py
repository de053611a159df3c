"""Read the tensors of a file that somebody brings, or say what the file seems to be instead."""

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fedpeft.models.checkpoints.files import unwrapped
from fedpeft.models.peers.form import Tensors

# How files begin that are no checkpoints.
BEGINNINGS = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"\x1f\x8b", "a gzip file, such as a .nii.gz volume"),
    (b"%PDF", "a PDF document"),
    (b"<", "a web page or another text that begins with '<'"),
)
ZIP, PICKLE = b"PK", b"\x80"
AGAIN = "fetch it again and compare its size or SHA-256 with the source's"


class WrongFileError(ValueError):
    """A file that is not what a command needs; the message says what it seems to be and what to do."""

    def __init__(self, file: Path, seems: str, remedy: str) -> None:
        super().__init__(f"{file} seems to be {seems}: {remedy}")


def read_tensors_of(file: Path) -> tuple[Tensors, dict[str, int]]:
    """A file's tensors on the CPU, without wrappers and prefixes, and what stands beside them.

    Args:
        file: .pth, .pt or .safetensors.

    Returns:
        Name -> tensor, and the whole numbers beside them, such as "epoch".

    Raises:
        FileNotFoundError: no such file.
        WrongFileError: it is no checkpoint, or damaged, or holds code or no tensors.
    """
    if file.is_dir():
        raise _folder(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; give the path of a .pth or .safetensors file")
    found = _safetensors(file) if file.suffix == ".safetensors" else _torch(file)
    tensors = unwrapped(found)
    _refuse_others(file, found, tensors)
    beside = {key: value for key, value in found.items() if isinstance(value, int)}
    return {str(key): value.detach() for key, value in tensors.items() if isinstance(value, Tensor)}, beside


def _folder(file: Path) -> WrongFileError:
    if (file / "adapter_config.json").is_file():
        kind = json.loads((file / "adapter_config.json").read_text()).get("peft_type", "LoRA")
        return WrongFileError(
            file,
            f"an adapter of Hugging Face's peft ({kind})",
            "no method here has its layers; give a file that FLAP-SAM, SAMed, MA-SAM or MedSAM saved",
        )
    if (file / "run.json").is_file():
        return WrongFileError(file, "a run of fedpeft", f"it needs no import; use it with --run {file}")
    return WrongFileError(file, "a folder", "give the .pth file in it")


def _safetensors(file: Path) -> dict[str, Any]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise WrongFileError(file, f"a truncated or damaged safetensors file ({error})", AGAIN) from error


def _torch(file: Path) -> Any:
    with file.open("rb") as stream:
        start = stream.read(64)
    if not start:
        raise WrongFileError(file, "an empty file", AGAIN)
    for beginning, seems in BEGINNINGS:
        if start.startswith(beginning):
            raise WrongFileError(file, seems, "give the .pth file that the training saved")
    if start.startswith(ZIP) and not zipfile.is_zipfile(file):
        raise WrongFileError(file, "a truncated checkpoint: its end is missing", AGAIN)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unpicklable(file, start, str(error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        line = str(error).partition("\n")[0]
        raise WrongFileError(file, f"no checkpoint of PyTorch, or a damaged one ({line})", AGAIN) from error


def _unpicklable(file: Path, start: bytes, reason: str) -> WrongFileError:
    if not start.startswith((ZIP, PICKLE)):
        text = start.decode(errors="replace").isprintable() or start.isascii()
        return WrongFileError(
            file, "a text file" if text else "no checkpoint", "give the .pth file that the training saved"
        )
    named = re.search(r"GLOBAL (\S+)", reason)
    return WrongFileError(
        file,
        f"a pickle that holds more than tensors{f' ({named[1]})' if named else ''}",
        "such a file can execute code, and is not opened; where you trust it, save the tensors alone with "
        "torch.save(model.state_dict(), FILE)",
    )


def _refuse_others(file: Path, found: Any, tensors: Any) -> None:
    """Refuse what holds no dict of tensors."""
    if isinstance(tensors, dict) and any(isinstance(value, Tensor) for value in tensors.values()):
        return
    if isinstance(found, dict) and (found.keys() & {"param_groups", "optimizer"}):
        raise WrongFileError(file, "the state of an optimiser without a model", "give the file of the model's tensors")
    if isinstance(found, dict) and not tensors:
        raise WrongFileError(file, "an empty dict", "give a file that was saved after training")
    kind = (
        f"a dict of {', '.join(map(repr, list(found)[:3]))}" if isinstance(found, dict) else f"a {type(found).__name__}"
    )
    raise WrongFileError(file, f"{kind} without tensors", "give the file of a model's tensors by name")

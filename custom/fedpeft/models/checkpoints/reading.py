"""Reading a backbone's weights from a file the user has: .pth or safetensors as SAM and ViTs are published.

No pickle is executed. A checkpoint trained at another side is fitted: SAM's absolute positions bilinearly and a ViT's
bicubically, relative positions of the global blocks linearly (those of windowed blocks do not depend on the side).
"""

import hashlib
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedpeft.config.backbones import Backbone
from fedpeft.models.adapters.base import adapter_prefixes
from fedpeft.models.checkpoints.dialects import remedy, shown, translated
from fedpeft.models.positions import fit

WEIGHTS = Path(__file__).parents[1] / "weights"
# Parts of published files that a model without them has no use for: a classifier, say.
PARTS = ("prompt_encoder", "mask_decoder")


def shipped(row: Backbone) -> Path | None:
    """The package's own checkpoint of a backbone, or None for one whose checkpoint the user brings."""
    return WEIGHTS / row.resource if row.resource else None


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_checkpoint(file: Path, model: nn.Module, row: Backbone) -> dict[str, Tensor]:
    """The tensors of ``file`` that the model takes over, fitted to the model's side.

    Args:
        file: .safetensors or .pth, a dict of tensors or one under "model", in one of the forms of
            ``fedpeft.models.checkpoints.dialects``; SAM's is the published one.
        model: the model that will be filled; only names and shapes are read, so it may be on the meta device.
        row: the backbone; its ``fresh`` tensors are left out, and so are adapters, which no checkpoint has.

    Returns:
        Parameter path -> float32 tensor of the model's shape.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable or truncated file, names of no known form, missing, unexpected or wrongly shaped tensor;
            the message names the file and the first offending key, and says what was expected.
    """
    wanted = {
        key: tensor
        for key, tensor in model.state_dict().items()
        if not key.startswith((*row.fresh, *adapter_prefixes(model)))
    }
    stored = _load(file, next(iter(wanted)))
    found = _of(model, stored, file, row)
    given = {}
    for key, tensor in wanted.items():
        if key not in found and _beyond_published(key, found):
            continue
        if key not in found:
            raise ValueError(_fault(file, row, key, "is missing", stored))
        fitted = fit(key, found[key].float(), tensor.shape)
        if fitted.shape != tensor.shape:
            shapes = f"has shape {tuple(found[key].shape)}, expected {tuple(tensor.shape)}"
            raise ValueError(_fault(file, row, key, shapes, stored))
        given[key] = fitted
    for key in found:
        if key not in wanted and not key.startswith((*row.fresh, "mask_decoder.output_upscaling.")):
            raise ValueError(_fault(file, row, key, "is not part of the model", stored))
    return given


def _load(file: Path, first_key: str) -> dict[str, Tensor]:
    """All tensors of a file on the CPU, whatever its format, without executing anything in it."""
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint {file} does not exist; give its path in the site file or --checkpoint")
    try:
        found = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
        raise ValueError(
            f"checkpoint {file} is truncated or no checkpoint: {first_key!r}, the first key expected, cannot be read "
            f"({error}); fetch the file again and compare its SHA-256"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        found = found["model"]
    if not isinstance(found, dict):
        raise ValueError(f"checkpoint {file} holds a {type(found).__name__}, expected a dict that has {first_key!r}")
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"checkpoint {file}: {key!r} is a {type(value).__name__}, expected a tensor")
    return found


def _of(model: nn.Module, found: dict[str, Tensor], file: Path, row: Backbone) -> dict[str, Tensor]:
    """A file's tensors under the model's names, without those of parts that the model does not have."""
    tensors = translated(found, row)
    if tensors is None:
        raise ValueError(
            f"checkpoint {file} does not fit backbone {row.name}: the first of its {len(found)} tensors are "
            f"{shown(found)}. {remedy(row)}"
        )
    unused = tuple(f"{part}." for part in PARTS if not hasattr(model, part))
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(unused)}


def _beyond_published(key: str, found: Iterable[str]) -> bool:
    """Whether the tensor is of an upscaling stage that the published decoder (4x) does not have."""
    stem = "mask_decoder.output_upscaling."
    if not key.startswith(stem):
        return False
    last = max((int(name[len(stem) :].split(".")[0]) for name in found if name.startswith(stem)), default=-1)
    return last >= 0 and int(key[len(stem) :].split(".")[0]) > last


def _fault(file: Path, row: Backbone, key: str, what: str, found: dict[str, Tensor]) -> str:
    return (
        f"checkpoint {file} does not fit backbone {row.name}: {key!r} {what}; the file has {len(found)} tensors, "
        f"the first is {next(iter(found), 'none')!r}. {remedy(row)}"
    )

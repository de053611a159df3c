"""Read tensors from a user's .pth or safetensors file without executing a pickle."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Keys under which training programs put a model's tensors, beside those of an optimiser.
WRAPPERS = ("state_dict", "model", "model_state_dict")
# What torch's parallel and compiled modules write before every name.
PREFIXES = ("module.", "_orig_mod.")


def unwrapped(found: Any) -> Any:
    """The dict of a model's tensors inside of what a file holds, without the prefixes that all its names share."""
    while isinstance(found, dict) and (inner := next((k for k in WRAPPERS if isinstance(found.get(k), dict)), "")):
        found = found[inner]
    for prefix in PREFIXES:
        if isinstance(found, dict) and found and all(str(key).startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def load_tensors(file: Path, first_key: str) -> dict[str, Tensor]:
    """All tensors of a file on the CPU.

    Args:
        file: .safetensors or .pth, a dict of tensors or one that ``unwrapped`` finds in it.
        first_key: the first name expected, for the message about a file that cannot be read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is unreadable or truncated, or holds no dict of tensors.
    """
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
    found = unwrapped(found)
    if not isinstance(found, dict):
        raise ValueError(f"checkpoint {file} holds a {type(found).__name__}, expected a dict that has {first_key!r}")
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"checkpoint {file}: {key!r} is a {type(value).__name__}, expected a tensor")
    return found

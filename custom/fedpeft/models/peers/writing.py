"""Write tensors as the .pth files that other programs read; nothing but dicts, strings, numbers and tensors enters."""

from pathlib import Path

import torch

from fedpeft.common.files import replace

ENDINGS = (".pth", ".pt")


def write_pth(file: Path, content: dict[str, object]) -> None:
    """Write plain values as a whole, see ``fedpeft.common.files.replace``.

    Raises:
        ValueError: the file has another ending, which the authors' loaders refuse.
        OSError: the folder cannot be written or is full.
    """
    if file.suffix not in ENDINGS:
        raise ValueError(f"--out is {file}, expected a name that ends in {' or '.join(ENDINGS)}")
    replace(file, lambda path: torch.save(content, path))

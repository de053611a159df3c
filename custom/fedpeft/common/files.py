"""Files that are complete or absent: write beside the target, flush to disk, rename."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary file in ``path``'s folder, then rename it to ``path``.

    Raises:
        OSError: the folder cannot be written or is full; a file that was at ``path`` before is unchanged.
    """
    try:
        _replace(path, write)
    except OSError as error:
        remedy = "nothing was written; free space on that disk, or let this account write there"
        raise OSError(error.errno, f"{error.strerror or error}: {remedy}", str(path)) from error


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes private files; other files follow the umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON with an indent of 2 and a final newline."""
    replace(path, lambda file: file.write_text(json.dumps(value, indent=2) + "\n"))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not JSON; the message names the file and the position.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}; correct the file") from error


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: see ``replace``.
    """
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    replace(path, lambda file: _save(plain, file, metadata))


def _save(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None) -> None:
    """Call ``save_file`` and turn its own error for a full disk, which holds the system's number, into an OSError."""
    try:
        save_file(tensors, file, metadata=metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors onto the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, or restore it from a copy") from error

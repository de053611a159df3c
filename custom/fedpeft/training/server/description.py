"""Reading run.json: which versions of it are read, and what each of them has."""

from pathlib import Path
from typing import Any

from fedpeft.common.files import read_json

# The last one is written. Version 1 is that of fedpeft 0.1, whose run is flat (``config/migrate.py``).
VERSIONS = (1, 2)
NEEDED = ("run", "checkpoint", "model_sha256", "preprocessing", "status", "rounds_done")


def read_description(file: Path) -> dict[str, Any]:
    """The content of a run.json.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not in a form that this package reads; the message names the file.
    """
    found = read_json(file)
    version = found.get("version") if isinstance(found, dict) else None
    if version not in VERSIONS:
        expected = " or ".join(map(str, VERSIONS))
        raise ValueError(f"{file}: version is {version!r}, expected {expected}; read it with the fedpeft that wrote it")
    if lacking := [name for name in NEEDED if name not in found]:
        raise ValueError(f"{file} describes no run of fedpeft: {lacking[0]!r} is missing; restore the file")
    return found

"""A fingerprint over the package's files, which shows whether the installed package comes from the expected wheel.

pip copies a wheel's files byte for byte and keeps no hash of the wheel. The fingerprint reveals a wrong version, a lost
file or an edit in place. It does not protect against somebody who can write to the machine, because they can change the
stated fingerprint too.
"""

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

# The file in a kit's local/ that states the consortium's wheel; ``of_wheel`` gives its content.
WHEEL = "fedpeft_wheel.json"
PACKAGE = "fedpeft"
BYTECODE = "__pycache__"


def of_wheel(wheel: Path) -> dict[str, str]:
    """What a kit states about the wheel: its name, the SHA-256 of the file, and the fingerprint of the package in it.

    Returns:
        {"wheel", "sha256", "files_sha256"}, the last as ``of_folder`` computes it once the wheel is installed.

    Raises:
        ValueError: the file is not a wheel of this package.
    """
    if not zipfile.is_zipfile(wheel):
        raise ValueError(f"{wheel} is no wheel; build one with admin/wheels.sh")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(f"{PACKAGE}/") and not name.endswith("/")]
        if not names:
            raise ValueError(f"{wheel} holds no {PACKAGE}/, expected its wheel; build one with admin/wheels.sh")
        files = fingerprint((name, archive.read(name)) for name in names)
    return {"wheel": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(), "files_sha256": files}


def of_folder(package: Path) -> str:
    """The fingerprint of an installed package or of its source, over every file except Python's bytecode.

    Args:
        package: the folder called fedpeft.
    """
    files = (path for path in package.rglob("*") if path.is_file() and BYTECODE not in path.parts)
    return fingerprint((f"{PACKAGE}/{path.relative_to(package).as_posix()}", path.read_bytes()) for path in files)


def fingerprint(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over the lines that sha256sum prints for the files, sorted by name.

    Args:
        files: name and content.
    """
    lines = sorted((name, hashlib.sha256(content).hexdigest()) for name, content in files)
    return hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256 in lines).encode()).hexdigest()

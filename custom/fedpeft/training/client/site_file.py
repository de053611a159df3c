"""The site file says where a machine keeps data, checkpoints and state, and what it permits.

It is ``local/fedpeft_site.json`` in a FLARE workspace. No job names such a path or decides what it may do.
"""

import os
import re
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from fedpeft.common.files import read_json, sha256_of, write_json
from fedpeft.config.run import Run
from fedpeft.models.checkpoints.start import needs_file, own
from fedpeft.training.client.permit import PERMIT_ALL, Permit

NAME = "fedpeft_site.json"
VERSION = 1
STALE_DAYS = 30
# The form of a server's name for a run, which becomes the name of a folder here.
RUN_KEY = re.compile(r"[0-9a-f]{32}")
# Files that ``nvflare provision`` writes: a workspace with one of them is the kit of a hospital or a server.
KIT_FILES = ("fed_client.json", "fed_server.json")


def _placed(value: str, info: ValidationInfo) -> str:
    """A path in which the client's name replaces ``{site}``."""
    path = value.replace("{site}", info.context["site"]) if info.context else value
    if not os.path.isabs(path):
        raise PydanticCustomError("path", "an absolute path: FLARE changes its folder", {"got": path})
    return path


SitePath = Annotated[str, AfterValidator(_placed)]
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


class Checkpoint(BaseModel):
    """The entry of a file of weights that the package does not ship."""

    model_config = STRICT

    path: SitePath = Field(description="file of the weights")
    sha256: str | None = Field(default=None, description="its SHA-256, checked when given")


class SiteFile(BaseModel):
    """A valid site file; its paths are absolute and ``{site}`` is replaced."""

    model_config = STRICT

    datasets: dict[str, SitePath] = Field(default={}, description="name that jobs use -> this site's datalist.json")
    checkpoints: dict[str, Checkpoint] = Field(
        default={}, description='backbone, or "<backbone>-medical" -> weights that are not shipped with the package'
    )
    initial_runs: dict[str, SitePath] = Field(
        default={}, description="server: name that jobs use -> folder of a finished run whose tensors they start from"
    )
    device: str = Field(default="cpu", description='"cpu" or "cuda:<index>"; a device that is not there is an error')
    threads: int = Field(default=1, ge=1, description="CPU threads of one training")
    state_dir: SitePath = Field(default="", description="optimiser moments between rounds, a folder for each run")
    cache_dir: SitePath = Field(default="", description="prepared images and embeddings, for later runs")
    compile: bool = Field(default=False, description="torch.compile makes kernels for this machine")
    save_memory: bool = Field(
        default=False, description="compute activations twice instead of keeping them, for small GPUs"
    )
    permit: Permit = Field(
        default=Permit(), description="what this site allows whatever a job says; absent permits nothing"
    )
    _path: Path = PrivateAttr(Path(NAME))

    @property
    def path(self) -> Path:
        """The path of the file, for messages."""
        return self._path

    @classmethod
    def read(cls, path: Path, values: dict[str, Any], site: str) -> Self:
        """Validate a file's values.

        Raises:
            ValueError: the message names the file and every faulty field, in one line.
        """
        try:
            found = cls.model_validate(values, context={"site": site})
        except ValidationError as error:
            raise ValueError(f"{path}: {'; '.join(map(_told, error.errors()))}") from None
        found._path = path
        return found

    def datalist(self, dataset: str) -> Path:
        """The path of a data set's datalist.

        Raises:
            ValueError: the file has no such data set.
        """
        if dataset not in self.datasets:
            known = ", ".join(self.datasets) or "none"
            raise ValueError(
                f'{self.path}: no data set {dataset!r} under "datasets" (there: {known}); add the absolute path of '
                f"its datalist.json, or prepare it with --register"
            )
        return Path(self.datasets[dataset])

    def checkpoint(self, run: Run) -> Path | None:
        """The file of the weights that a run starts from: the package's own where it ships them, None for random ones.

        Raises:
            ValueError: the site file names none, or their SHA-256 differs from the stated one.
        """
        if not needs_file(run):
            return own(run)
        name = checkpoint_name(run)
        entry = self.checkpoints.get(name)
        if not entry:
            raise ValueError(
                f'{self.path}: no checkpoint for backbone {name!r} under "checkpoints"; add '
                f'{{"{name}": {{"path": "/absolute/path.pth", "sha256": "..."}}}}'
            )
        return verified(Path(entry.path), entry.sha256)

    def initial_run(self, name: str) -> Path:
        """The folder of the finished run that a job starts from.

        Raises:
            ValueError: the file has none of that name.
        """
        if name not in self.initial_runs:
            known = ", ".join(self.initial_runs) or "none"
            raise ValueError(
                f'{self.path}: no run {name!r} under "initial_runs" (there: {known}); add the absolute path of its '
                f"folder"
            )
        return Path(self.initial_runs[name])

    def admit(self, method: str, upload_bytes: int) -> None:
        """See ``Permit.admit``."""
        self.permit.admit(method, upload_bytes)


PARTS: dict[str, type[BaseModel]] = {"checkpoints": Checkpoint, "permit": Permit}


def _told(error: ErrorDetails) -> str:
    """Pydantic's fault as one sentence: the field, what was got, what was expected."""
    *above, name = map(str, error["loc"])
    if error["type"] == "missing":
        return f"{'.'.join(above)} has no {name!r}"
    if error["type"] == "extra_forbidden":
        known = PARTS[above[0]].model_fields if above else SiteFile.model_fields
        return f"unknown field {name!r}{' in ' + '.'.join(above) if above else ''}; known: {', '.join(known)}"
    expected = error["msg"].removeprefix("Input should be ")
    if error["type"] == "model_type":
        expected = f"a JSON object of {', '.join(PARTS[str(error['loc'][0])].model_fields)}"
    return f"{'.'.join((*above, name))} is {error.get('ctx', {}).get('got', error['input'])!r}, expected {expected}"


def checkpoint_name(run: Run) -> str:
    """What site files call the weights that a run starts from."""
    return run.model.backbone if run.model.initial == "generic" else f"{run.model.backbone}-{run.model.initial}"


def run_state(site_file: SiteFile, run_key: str) -> Path:
    """The folder of a run's optimiser moments; folders of runs untouched for ``STALE_DAYS`` days are removed.

    Raises:
        ValueError: the site file names no ``state_dir``.
    """
    if not site_file.state_dir:
        raise ValueError(f'{site_file.path}: no "state_dir"; add the absolute path of a folder that survives a restart')
    root = Path(site_file.state_dir)
    oldest = time.time() - STALE_DAYS * 86400
    for folder in root.glob("*/"):
        # state_dir may contain other folders too, so only names of runs are removed.
        if not RUN_KEY.fullmatch(folder.name) or folder.name == run_key:
            continue
        if max(file.stat().st_mtime for file in (folder, *folder.rglob("*"))) < oldest:
            shutil.rmtree(folder)
    return root / run_key


def verified(path: Path, sha256: str | None) -> Path:
    """Return ``path`` if the file has the stated SHA-256, or none is stated.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the hash differs; the message names both.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist; correct the site file")
    if sha256 and (found := sha256_of(path)) != sha256:
        raise ValueError(f"checkpoint {path} has SHA-256 {found}, the site file expects {sha256}; fetch it again")
    return path


def read_site_file(path: Path, site: str) -> SiteFile:
    """Read, validate and expand a site file.

    Args:
        path: the file.
        site: the FLARE client's name, which replaces ``{site}``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the version, a field, a type or a relative path is wrong; the message names the field.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"site file {path} does not exist; write it (admin/README.md lists its fields) or let fedpeft data phantom "
            f"--register write it"
        )
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("version", None) != VERSION:
        raise ValueError(f'{path}: expected a JSON object with "version": {VERSION}')
    return SiteFile.read(path, values, site)


def register(workspace: Path, dataset: str, root: Path) -> Path:
    """Enter a folder of sites in the workspace's site file; create the file if it is missing, keep other entries.

    The user of a simulator's workspace runs all its sites, so a file there without a permit gets one for everything.
    The site file of a kit keeps the hospital's own decision.

    Args:
        workspace: a FLARE workspace, such as poc/simulator.
        dataset: name under which jobs ask for the data.
        root: folder with ``<site>/datalist.json``.

    Returns:
        The site file.
    """
    workspace = workspace.absolute()
    path = workspace / "local" / NAME
    values = read_json(path) if path.is_file() else _new(workspace)
    values.setdefault("datasets", {})[dataset] = str(root.absolute() / "{site}" / "datalist.json")
    if not any((workspace / "startup" / name).exists() for name in KIT_FILES):
        values.setdefault("permit", PERMIT_ALL)
    write_json(path, values)
    return path


def _new(workspace: Path) -> dict[str, Any]:
    return {
        "version": VERSION,
        "datasets": {},
        "checkpoints": {},
        "device": "cpu",
        "threads": 1,
        "state_dir": str(workspace.parent / "state"),
    }

"""The site file: where this machine keeps data, checkpoints and state. No job ever names such a path.

``local/fedpeft_site.json`` of a FLARE workspace; ``{site}`` in a path becomes the FLARE client's name.
"""

import os
import re
import shutil
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fedpeft.common.files import read_json, write_json
from fedpeft.config.run import Run
from fedpeft.models.checkpoints.reading import sha256_of
from fedpeft.models.checkpoints.start import needs_file, own

NAME = "fedpeft_site.json"
VERSION = 1
STALE_DAYS = 30
# What a server may call a run: it becomes a folder's name here.
RUN_KEY = re.compile(r"[0-9a-f]{32}")
PERMITS = {"methods": list, "max_upload_bytes": int}


@dataclass(frozen=True)
class SiteFile:
    """A validated site file, paths absolute.

    Attributes:
        path: the file itself, for messages.
        datasets: name of a data set -> its datalist.json at this site.
        checkpoints: backbone, or "<backbone>-medical", -> {"path", "sha256"}; the hash is optional and is checked when
            given.
        device: "cpu" or "cuda:<index>".
        threads: torch's threads for one training.
        state_dir: where optimiser moments are kept between rounds.
        cache_dir: where derived data may be kept.
        compile: whether torch.compile is to make kernels for this machine (``acceleration.py``).
        save_memory: whether a step keeps less for its backward pass and computes more, for small GPUs.
        permit: {"methods": [...], "max_upload_bytes": n}: what this site allows, whatever a job says.
    """

    path: Path
    datasets: dict[str, str] = field(default_factory=dict)
    checkpoints: dict[str, dict[str, str]] = field(default_factory=dict)
    device: str = "cpu"
    threads: int = 1
    state_dir: str = ""
    cache_dir: str = ""
    compile: bool = False
    save_memory: bool = False
    permit: dict[str, Any] = field(default_factory=dict)

    def datalist(self, dataset: str) -> Path:
        """The datalist of a data set.

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
        """The weights that a run starts from: the package's own where they ship with it, None for random ones.

        Raises:
            ValueError: the file names none, or their SHA-256 is not the one that the file states.
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
        return verified(Path(entry["path"]), entry.get("sha256"))

    def admit(self, method: str, upload_bytes: int) -> None:
        """Check a job against what the site permits. The message may leave the site: it names no path.

        Raises:
            ValueError: the method is not permitted or would send more than the site allows.
        """
        methods = self.permit.get("methods")
        if methods is not None and method not in methods:
            raise ValueError(f"the site does not permit method {method!r}; it permits: {', '.join(methods)}")
        limit = self.permit.get("max_upload_bytes")
        if limit is not None and upload_bytes > limit:
            raise ValueError(f"an upload of {upload_bytes:,} bytes exceeds what the site permits, {limit:,}")


def checkpoint_name(run: Run) -> str:
    """What site files call the weights that a run starts from."""
    return run.model.backbone if run.model.initial == "generic" else f"{run.model.backbone}-{run.model.initial}"


def run_state(site_file: SiteFile, run_key: str) -> Path:
    """Where a run's optimiser moments are kept; those of runs that nobody touched for ``STALE_DAYS`` are removed.

    Raises:
        ValueError: the site file names no ``state_dir``.
    """
    if not site_file.state_dir:
        raise ValueError(f'{site_file.path}: no "state_dir"; add the absolute path of a folder that survives a restart')
    root = Path(site_file.state_dir)
    oldest = time.time() - STALE_DAYS * 86400
    for folder in root.glob("*/"):
        # Only what we made: state_dir may be a folder that holds other things too.
        if not RUN_KEY.fullmatch(folder.name) or folder.name == run_key:
            continue
        if max(file.stat().st_mtime for file in (folder, *folder.rglob("*"))) < oldest:
            shutil.rmtree(folder)
    return root / run_key


def verified(path: Path, sha256: str | None) -> Path:
    """``path`` if its SHA-256 is the stated one, or none is stated.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another hash; both are named.
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
        site: the FLARE client's name, put in for ``{site}``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another version, an unknown field, a wrong type or a relative path; the message names the field.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"site file {path} does not exist; write it (see README.md) or let fedpeft data phantom --register do it"
        )
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("version", None) != VERSION:
        raise ValueError(f'{path}: expected a JSON object with "version": {VERSION}')
    types = {item.name: item.type for item in fields(SiteFile) if item.name != "path"}
    for name, value in values.items():
        if name not in types:
            raise ValueError(f"{path}: unknown field {name!r}; known: {', '.join(types)}")
        expected = getattr(types[name], "__origin__", types[name])
        if not isinstance(value, expected) or isinstance(value, bool) != (expected is bool):
            raise ValueError(f"{path}: {name} is {value!r}, expected {expected.__name__}")
    _check_nested(path, values)
    return SiteFile(path=path, **{name: _expanded(value, site, path, (name,)) for name, value in values.items()})


def _check_nested(path: Path, values: dict[str, Any]) -> None:
    """What a security officer wrote must mean what it says: no unknown or mistyped entry may be passed over."""
    if values.get("threads", 1) < 1:
        raise ValueError(f"{path}: threads is {values['threads']}, expected 1 or more")
    for name, value in values.get("permit", {}).items():
        if name not in PERMITS:
            raise ValueError(f"{path}: permit has {name!r}, known: {', '.join(PERMITS)}")
        if not isinstance(value, PERMITS[name]) or isinstance(value, bool):
            raise ValueError(f"{path}: permit.{name} is {value!r}, expected a {PERMITS[name].__name__}")
    for name, value in values.get("datasets", {}).items():
        if not isinstance(value, str):
            raise ValueError(f"{path}: datasets.{name} is {value!r}, expected a path")
    for name, entry in values.get("checkpoints", {}).items():
        if not isinstance(entry, dict) or "path" not in entry or not entry.keys() <= {"path", "sha256"}:
            raise ValueError(f'{path}: checkpoints.{name} is {entry!r}, expected {{"path": ..., "sha256": ...}}')


def _expanded(value: Any, site: str, path: Path, keys: tuple[str, ...]) -> Any:
    """``{site}`` replaced in every string; values that name places must be absolute after that."""
    if isinstance(value, dict):
        return {key: _expanded(item, site, path, (*keys, key)) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    text = value.replace("{site}", site)
    is_path = keys[0] == "datasets" or keys[-1] in ("path", "state_dir", "cache_dir")
    if is_path and not os.path.isabs(text):
        raise ValueError(f"{path}: {'.'.join(keys)} is {text!r}, expected an absolute path: FLARE changes its folder")
    return text


def register(workspace: Path, dataset: str, root: Path) -> Path:
    """Enter a folder of sites in the workspace's site file, making the file if need be; other entries stay.

    Args:
        workspace: a FLARE workspace, such as poc/simulator.
        dataset: name under which jobs ask for the data.
        root: folder with ``<site>/datalist.json``.

    Returns:
        The site file.
    """
    path = workspace.absolute() / "local" / NAME
    values = (
        read_json(path)
        if path.is_file()
        else {
            "version": VERSION,
            "datasets": {},
            "checkpoints": {},
            "device": "cpu",
            "threads": 1,
            "state_dir": str(workspace.absolute().parent / "state"),
        }
    )
    values.setdefault("datasets", {})[dataset] = str(root.absolute() / "{site}" / "datalist.json")
    write_json(path, values)
    return path

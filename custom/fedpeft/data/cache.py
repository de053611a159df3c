"""A bounded cache of tensors that take long to compute: for one run, or in a site's cache folder for later runs too.

With a folder, every entry is a memory-mapped file there, so that the operating system decides how much of it is in
memory. Without one, entries are in memory up to a bound, and beyond it in memory-mapped temporary files whose names are
deleted at once. An entry without space is computed each time it is requested: the cache never changes a result, only
when it is computed.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedpeft.common.files import sha256_of

MEMORY = 2 * 2**30
DISK = 32 * 2**30
SUFFIX, DRAFT = ".safetensors", ".draft"
# A draft older than this belongs to a process that was killed.
STALE_SECONDS = 86400

LOG = logging.getLogger(__name__)
Tensors = dict[str, Tensor]


class Cache:
    """Entries by the hash of everything that they depend on.

    Files are complete or absent (written beside, then renamed) and carry a checksum; a damaged one is made again, with
    a message. Processes may share a folder: the later one finds the other's entry or writes the same entry again.

    Args:
        folder: where entries outlive the run; None: they do not. Its files hold patients' images and are readable by
            their owner alone.
        stamp: what all entries depend on in addition, such as the package's version.
        memory: bytes that may stay in memory without a folder.
        disk: bytes on disk, and never more than half of what was free; the least recently used entries are removed
            first.

    Attributes:
        full: whether an entry found no space.
    """

    def __init__(self, folder: Path | None = None, stamp: str = "", memory: int = MEMORY, disk: int = DISK) -> None:
        self.folder, self.stamp, self.full = folder, stamp, False
        self._memory, self._disk, self._space = memory, disk, 0
        self._writable = folder is not None
        self._kept: dict[str, Tensors] = {}
        # Several threads may make entries; only one at a time decides whether there is space.
        self._deciding = threading.Lock()

    def get(self, parts: Iterable[object], make: Callable[[], Tensors]) -> Tensors:
        """An entry, made if it is not there.

        Args:
            parts: everything that determines the entry; different values must have different ``repr``.
            make: computes it; its tensors are on the CPU.

        Returns:
            What ``make`` returns, now or earlier; callers must not change it in place.
        """
        key = hashlib.sha256("\x1f".join(map(repr, (self.stamp, *parts))).encode()).hexdigest()
        if key not in self._kept:
            found = self._read(key)
            if found is None:
                found = make()
                with self._deciding:
                    placed = self._written(key, found) or self._bounded(found)
                    if placed is None:
                        self._declare_full()
                        return found
                found = placed
            self._kept[key] = found
        return self._kept[key]

    def hold(self, tensors: Tensors) -> Tensors:
        """The same values within this run's bounds, in memory or mapped; unchanged if neither has space."""
        bounded = self._bounded(tensors)
        if bounded is None:
            self._declare_full()
        return bounded or tensors

    def _declare_full(self) -> None:
        if not self.full:
            LOG.warning(
                "the cache is full (%s); entries without space are computed again each time: give the site file a "
                '"cache_dir" on a larger disk',
                self.folder or "no cache_dir",
            )
        self.full = True

    def _read(self, key: str) -> Tensors | None:
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            tensors = _mapped(path)
            os.utime(path)
            return tensors
        except (SafetensorError, ValueError, OSError) as error:
            LOG.warning("%s is damaged (%s); it is made again", path, error)
            return None

    def _written(self, key: str, tensors: Tensors) -> Tensors | None:
        """The entry as a file of the folder; None if there is no folder, or no space in it."""
        path, size = self._path(key), _bytes(tensors)
        try:
            if path is None or not self._writable or not self._make_space(path.parent, size):
                return None
            _write(path, tensors)
            self._space -= size
            return _mapped(path)
        except (SafetensorError, ValueError, OSError) as error:
            LOG.warning(
                "%s cannot be written (%s), so this run keeps nothing more in its folder; correct the site file's "
                '"cache_dir" or free its disk',
                path,
                error,
            )
            self._writable = False
            return None

    def _bounded(self, tensors: Tensors) -> Tensors | None:
        size = _bytes(tensors)
        if size <= self._memory:
            self._memory -= size
            return tensors
        if size > min(self._disk, shutil.disk_usage(tempfile.gettempdir()).free // 2):
            return None
        self._disk -= size
        with tempfile.TemporaryDirectory(prefix="fedpeft-") as folder:
            path = Path(folder) / SUFFIX
            _write(path, tensors)
            # The mapping outlives the file's name, so no patient data stays behind, however the process ends.
            return _mapped(path)

    def _path(self, key: str) -> Path | None:
        return self.folder / f"{key}{SUFFIX}" if self.folder else None

    def _make_space(self, folder: Path, size: int) -> bool:
        """Whether there is space for ``size`` bytes; removes the oldest files, but lists the folder only rarely."""
        if size <= self._space:
            return True
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(_sizes(folder), key=lambda item: item[0])
        total = sum(used for _, used, _ in files)
        limit = min(self._disk, total + shutil.disk_usage(folder).free // 2)
        for _, used, path in files:
            if total + size <= limit:
                break
            # This run's own entries stay: it requests them again in the same order and would find none.
            if path.stem not in self._kept:
                path.unlink(missing_ok=True)
                total -= used
        self._space = min(limit - total, max(size, limit // 16))
        return size <= self._space


def content(path: Path | None) -> str:
    """SHA-256 of a file's bytes; "" for a file that does not exist, which its reader will report."""
    if path is None or not path.is_file():
        return ""
    return sha256_of(path)


def _sizes(folder: Path) -> Iterable[tuple[float, int, Path]]:
    """Time of last use, bytes and path of each entry; drafts of processes that were killed are removed."""
    for path in folder.iterdir():
        try:
            state = path.stat()
        except FileNotFoundError:
            # Another process has removed it meanwhile.
            continue
        if path.suffix == SUFFIX:
            yield state.st_mtime, state.st_size, path
        elif path.suffix == DRAFT and state.st_mtime < time.time() - STALE_SECONDS:
            path.unlink(missing_ok=True)


def _write(path: Path, tensors: Tensors) -> None:
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=DRAFT)
    os.close(handle)
    try:
        save_file(plain, name, metadata={"crc32": _checksum(plain)})
        os.chmod(name, 0o600)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _mapped(path: Path) -> Tensors:
    """A file's tensors, memory-mapped; writing to them changes no file.

    Raises:
        SafetensorError, ValueError, OSError: the file is damaged or gone.
    """
    with safe_open(path, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        expected = (stored.metadata() or {}).get("crc32")
    if _checksum(tensors) != expected:
        raise ValueError(f"its checksum is {_checksum(tensors)}, expected {expected}")
    return tensors


def _checksum(tensors: Tensors) -> str:
    value = 0
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, zlib.crc32(name.encode(), value))
    return f"{value:08x}"


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())

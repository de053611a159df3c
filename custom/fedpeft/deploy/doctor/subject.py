"""The subject of ``fedpeft doctor``: a machine, and the kit and the site file on it."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from fedpeft.deploy.doctor.finding import NotChecked
from fedpeft.deploy.doctor.kit import SERVER, Kit, read_kit
from fedpeft.training.client.site_file import SiteFile, read_site_file

# The state of ntp_gettime(3) for a clock that nothing synchronises.
UNSYNCHRONISED = 5


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it; ``free`` and ``total`` memory in bytes."""

    name: str
    free: int
    total: int


def visible_gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process may use, in torch's order.

    Raises:
        RuntimeError: a GPU cannot be opened, for instance because another process has exclusive use of it.
    """
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(name, *torch.cuda.mem_get_info(index)) for index, name in enumerate(names))


def kept_by_ntp() -> bool | None:
    """Whether the kernel reports a synchronised clock; None if it does not report a state."""
    try:
        state = ctypes.CDLL(None).ntp_gettime(ctypes.create_string_buffer(256))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else state != UNSYNCHRONISED


@dataclass(frozen=True)
class Machine:
    """The facts about a machine that tests replace; one that may fail is a function, called by its own check alone.

    Attributes:
        gpus: see ``visible_gpus``.
        cuda: the CUDA version that torch was built for; None for a build without.
        synchronised: see ``kept_by_ntp``.
    """

    gpus: Callable[[], tuple[Gpu, ...]] = visible_gpus
    cuda: str | None = torch.version.cuda
    synchronised: Callable[[], bool | None] = kept_by_ntp


@dataclass(frozen=True)
class Needs:
    """The requirements against which the machine is checked.

    Attributes:
        gpu_gib: free GPU memory in GiB; None for what the site file's backbones need.
        disk_gib: free disk space in GiB. Training every parameter of the largest backbone takes 1.1 GB for a run, and
            twice that while a new state replaces the last one.
        full: whether to read every case of the data sets.
    """

    gpu_gib: float | None = None
    disk_gib: float = 5.0
    full: bool = False


@dataclass(frozen=True)
class Subject:
    """A machine with the kit and the site file on it.

    Attributes:
        kit_folder: the folder that contains startup/ and local/; None without a kit.
        site_path: the site file; None without one.
        given_name: the site's name; None means the kit's name.
        needs: the requirements.
        machine: the facts about the machine.
    """

    kit_folder: Path | None = None
    site_path: Path | None = None
    given_name: str | None = None
    needs: Needs = Needs()
    machine: Machine = Machine()

    @property
    def role(self) -> str:
        """The machine's role: "client", "server" or "admin"; without a readable kit, "client"."""
        try:
            return self.kit.role
        except NotChecked:
            return "client"

    def read_kit(self) -> Kit:
        """Read the kit.

        Raises:
            NotChecked: no kit was given.
            ValueError, OSError: the kit cannot be read.
        """
        if self.kit_folder is None:
            raise NotChecked("no kit was given: --kit DIR")
        return read_kit(self.kit_folder)

    def read_site(self) -> SiteFile:
        """Read the site file; ``{site}`` stays as it is if the site's name is not known.

        Raises:
            NotChecked: no site file was given.
            ValueError, OSError: the file cannot be read.
        """
        if self.site_path is None:
            raise NotChecked("no site file was given: --site FILE")
        return read_site_file(self.site_path, self.name or "{site}")

    @cached_property
    def kit(self) -> Kit:
        """The kit, for checks that only use it; raises NotChecked if it is missing or cannot be read."""
        try:
            return self.read_kit()
        except (ValueError, OSError) as error:
            raise NotChecked("the kit cannot be read") from error

    @cached_property
    def site(self) -> SiteFile:
        """The site file, for checks that only use it; raises NotChecked if it is missing or not valid."""
        try:
            return self.read_site()
        except (ValueError, OSError) as error:
            raise NotChecked("the site file is not valid") from error

    @property
    def name(self) -> str | None:
        """The site's name; None if it is not known."""
        try:
            return self.given_name or self.kit.name
        except NotChecked:
            return None

    @property
    def local(self) -> Path:
        """The folder of FLARE's local files; raises NotChecked without a kit and a site file."""
        if self.kit_folder is not None:
            return self.kit_folder / "local"
        if self.site_path is not None:
            return self.site_path.parent
        raise NotChecked("neither a kit nor a site file was given: --kit DIR or --site FILE")

    @property
    def is_server(self) -> bool:
        """Whether the machine is the server."""
        return self.role == SERVER

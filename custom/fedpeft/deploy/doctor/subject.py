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

# A clock state of ntp_gettime(3): nothing tells the kernel the time.
UNSYNCHRONISED = 5


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it; bytes."""

    name: str
    free: int
    total: int


def visible_gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process may use, in torch's order.

    Raises:
        RuntimeError: one cannot be opened, for instance since another process has it for itself.
    """
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(name, *torch.cuda.mem_get_info(index)) for index, name in enumerate(names))


def kept_by_ntp() -> bool | None:
    """Whether the kernel says that something keeps its clock right; None if it does not say."""
    try:
        state = ctypes.CDLL(None).ntp_gettime(ctypes.create_string_buffer(256))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else state != UNSYNCHRONISED


@dataclass(frozen=True)
class Machine:
    """The facts of a machine that no test can change, as functions: one that fails fails its own check alone.

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
    """A person's demands on the machine.

    Attributes:
        gpu_gib: free GPU memory; None for the need of the site file's backbones.
        disk_gib: free space. Training every parameter of the largest backbone needs 1.1 GB for a run, twice while a
            state replaces the last one.
        full: read every case of the data sets.
    """

    gpu_gib: float | None = None
    disk_gib: float = 5.0
    full: bool = False


@dataclass(frozen=True)
class Subject:
    """A machine, the kit and the site file on it.

    Attributes:
        kit_folder: the folder that has startup/ and local/; None without a kit.
        site_path: the site file; None without one.
        given_name: the site's name; None for the kit's.
        needs: a person's demands.
        machine: the facts of the machine.
    """

    kit_folder: Path | None = None
    site_path: Path | None = None
    given_name: str | None = None
    needs: Needs = Needs()
    machine: Machine = Machine()

    @property
    def role(self) -> str:
        """The role: "client", "server" or "admin"; a machine without a readable kit counts as a client."""
        try:
            return self.kit.role
        except NotChecked:
            return "client"

    def read_kit(self) -> Kit:
        """The kit.

        Raises:
            NotChecked: none was given.
            ValueError, OSError: it cannot be read.
        """
        if self.kit_folder is None:
            raise NotChecked("no kit was given: --kit DIR")
        return read_kit(self.kit_folder)

    def read_site(self) -> SiteFile:
        """The site file; ``{site}`` stays as it is if nothing says the site's name.

        Raises:
            NotChecked: none was given.
            ValueError, OSError: it cannot be read.
        """
        if self.site_path is None:
            raise NotChecked("no site file was given: --site FILE")
        return read_site_file(self.site_path, self.name or "{site}")

    @cached_property
    def kit(self) -> Kit:
        """The kit, for checks that are not about it; NotChecked if there is none or it cannot be read."""
        try:
            return self.read_kit()
        except (ValueError, OSError) as error:
            raise NotChecked("the kit cannot be read") from error

    @cached_property
    def site(self) -> SiteFile:
        """The site file, for checks that are not about it; NotChecked if there is none or it is not valid."""
        try:
            return self.read_site()
        except (ValueError, OSError) as error:
            raise NotChecked("the site file is not valid") from error

    @property
    def name(self) -> str | None:
        """The site's name; None if nothing says it."""
        try:
            return self.given_name or self.kit.name
        except NotChecked:
            return None

    @property
    def local(self) -> Path:
        """The folder of FLARE's local files; NotChecked without a kit or a site file."""
        if self.kit_folder is not None:
            return self.kit_folder / "local"
        if self.site_path is not None:
            return self.site_path.parent
        raise NotChecked("neither a kit nor a site file was given: --kit DIR or --site FILE")

    @property
    def is_server(self) -> bool:
        """Whether the machine is the server."""
        return self.role == SERVER

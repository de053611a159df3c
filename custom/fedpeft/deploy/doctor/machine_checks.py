"""Checks of the machine itself: Python and packages, GPU, disk."""

import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata, requires, version
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import fedpeft
from fedpeft.common.files import read_json
from fedpeft.common.fingerprint import PACKAGE, WHEEL, of_folder
from fedpeft.deploy.doctor.finding import Finding, NotChecked, fault, ok, warning
from fedpeft.deploy.doctor.subject import Gpu, Subject

GIB = 2**30
# Backbone -> free GPU memory in GiB: minimum for a step of a low-rank method, need of a shipped job, that job's name.
# Computed, not measured on a GPU: weights, gradients, moments, activations of a step, and 1 GiB for CUDA.
GPU_GIB: dict[str, tuple[float, float, str]] = {
    "sam_vit_b": (2.0, 20.0, "flap_sam_kits19"),
    # ViT-B's activations times the ratio of width x depth.
    "sam_vit_l": (4.0, 52.0, "flap_sam_kits19 with sam_vit_l"),
    "sam_vit_h": (6.5, 86.0, "flap_sam_kits19 with sam_vit_h"),
    "vit_b16": (1.5, 7.0, "lora_isic2019"),
}
SMALL = (1.5, 2.0, "flap_sam_phantom")


def python(subject: Subject) -> Iterator[Finding]:
    """Check that Python has the version that the package requires."""
    expected, found = _stated()["Requires-Python"], platform.python_version()
    if SpecifierSet(expected).contains(found, prereleases=True):
        yield ok(found, expected)
        return
    yield fault(
        f"{found} at {sys.executable}",
        expected,
        f"make a virtual environment with Python {expected} and install fedpeft there",
    )


def packages(subject: Subject) -> Iterator[Finding]:
    """Check that every direct requirement of the package is installed in the required version."""
    _stated()
    needed = [Requirement(line) for line in requires(PACKAGE) or []]
    needed = [item for item in needed if item.marker is None or item.marker.evaluate({"extra": ""})]
    installed = {item.name: _version(item.name) for item in needed}
    wrong = [item for item in needed if not _fits(item, installed[item.name])]
    if not wrong:
        yield ok(", ".join(f"{name} {number}" for name, number in installed.items()))
    for item in wrong:
        yield fault(
            installed[item.name] or "not installed",
            str(item.specifier),
            f"{sys.executable} -m pip install '{item}'",
            of=item.name,
        )


def wheel(subject: Subject) -> Iterator[Finding]:
    """Check that the installed files are those of the wheel that the kit names."""
    file = subject.local / WHEEL
    if not file.is_file():
        raise NotChecked(f"{file} does not exist; kits of admin/project.yml have it")
    stated, package = read_json(file), Path(fedpeft.__file__).parent
    expected, found = stated["files_sha256"], of_folder(package)
    if found == expected:
        yield ok(f"files of {stated['wheel']}")
        return
    yield fault(
        f"files with fingerprint {found} in {package}",
        f"{expected}, of {stated['wheel']}",
        f"get {stated['wheel']} from whoever made the kit, compare its SHA-256 with {stated['sha256']} and run "
        f"{sys.executable} -m pip install --force-reinstall --no-deps {stated['wheel']}",
    )


def gpu(subject: Subject) -> Iterator[Finding]:
    """Check that the site file's device exists and has enough free memory."""
    asked = subject.site.device
    if asked == "cpu":
        yield ok("the site file asks for none")
        return
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = torch.device("cpu")
    if device.type != "cuda":
        yield fault(asked, "cpu or cuda:<number>", f'correct "device" in {subject.site.path}')
        return
    gpus = subject.machine.gpus()
    if (index := device.index or 0) < len(gpus):
        yield _memory(subject, gpus[index])
    else:
        yield _absent(subject, asked, gpus)


def _memory(subject: Subject, gpu: Gpu) -> Finding:
    least, usual, job = _needed(subject)
    free, found = gpu.free / GIB, f"{gpu.name}, {gpu.free / GIB:.1f} of {gpu.total / GIB:.1f} GiB free"
    remedy = "end what occupies the GPU (nvidia-smi lists it), or name a larger one in the site file"
    if free < least:
        return fault(found, f"{least:g} GiB free", remedy)
    if free < usual:
        return warning(found, f"{usual:g} GiB free for {job}", f"{remedy}, or run jobs with a smaller batch")
    return ok(found, f"{usual:g} GiB free")


def _needed(subject: Subject) -> tuple[float, float, str]:
    """Minimum and usual need in GiB, and the job with the usual need."""
    if (asked := subject.needs.gpu_gib) is not None:
        return asked, asked, "what was asked for"
    backbones = {name.removesuffix("-medical") for name in subject.site.checkpoints}
    return max((GPU_GIB.get(name, SMALL) for name in backbones), default=SMALL)


def _absent(subject: Subject, asked: str, gpus: tuple[Gpu, ...]) -> Finding:
    correct = f'or correct "device" in {subject.site.path}'
    remedy = f"install the GPU's driver until nvidia-smi lists it, unset CUDA_VISIBLE_DEVICES, {correct}"
    if gpus:
        remedy = f"unset CUDA_VISIBLE_DEVICES if it hides one, {correct}: the first GPU is cuda:0"
    elif subject.machine.cuda is None:
        remedy = f"install a build of torch with CUDA, this one has none (pytorch.org says which), {correct}"
    return fault(", ".join(gpu.name for gpu in gpus) or "no GPU", asked, remedy)


def disk(subject: Subject) -> Iterator[Finding]:
    """Check the free space for the site's state and for the kit, where FLARE keeps jobs and logs."""
    for what, folder in _written(subject).items():
        found, least = shutil.disk_usage(_existing(folder)).free / GIB, subject.needs.disk_gib
        text, expected = f"{found:.1f} GiB free at {folder}", f"{least:g} GiB"
        if found < least:
            yield fault(text, expected, "free space there, or move the folder to a larger disk", of=what)
        else:
            yield ok(text, expected, of=what)


def _written(subject: Subject) -> dict[str, Path]:
    folders = {}
    if not subject.is_server and subject.site.state_dir:
        folders["state_dir"] = Path(subject.site.state_dir)
    if subject.kit_folder is not None:
        folders["kit"] = subject.kit_folder
    if not folders:
        raise NotChecked('neither a kit nor a site file with "state_dir" was given')
    return folders


def state_dir(subject: Subject) -> Iterator[Finding]:
    """Check that the folder can be written; training would find out only at the end of its first round."""
    site = subject.site
    if not site.state_dir:
        yield fault('no "state_dir"', "the absolute path of a folder that survives a restart", f"add it to {site.path}")
        return
    folder = Path(site.state_dir)
    there = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there) as stream:
            stream.write(b"fedpeft")
            stream.flush()
    except OSError as error:
        yield fault(
            f"{there}: {error.strerror}",
            f"{folder}, a folder that can be written",
            f'make {folder} and give it to the user that runs FLARE\'s client, or correct "state_dir" in {site.path}',
        )
        return
    yield ok(f"{folder} can be written" if there == folder else f"{folder} can be made in {there}")


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _stated() -> PackageMetadata:
    """The installed package's metadata; raises NotChecked if the package is not installed."""
    try:
        return metadata(PACKAGE)
    except PackageNotFoundError as error:
        raise NotChecked(f"{PACKAGE} is not installed here, so nothing says what it requires") from error


def _fits(item: Requirement, found: str | None) -> bool:
    return found is not None and item.specifier.contains(found, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

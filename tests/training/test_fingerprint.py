"""The fingerprint of a wheel is that of the package installed from it, and of nothing else."""

import subprocess
import zipfile
from hashlib import sha256

import pytest

from fedpeft.common.fingerprint import of_folder, of_wheel


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "site-packages" / "fedpeft"
    for name in ("__init__.py", "models/vit.py", "models/weights/tiny.safetensors", "config/run.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def wheel(package, tmp_path):
    file = tmp_path / "fedpeft-1.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(package.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(package.parent))
        archive.writestr("fedpeft-1.dist-info/RECORD", "")
    return file


def test_a_wheel_and_what_is_installed_from_it(package, wheel):
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "run.pyc").write_bytes(b"made at the first import")
    assert of_wheel(wheel) == {
        "wheel": "fedpeft-1.whl",
        "sha256": sha256(wheel.read_bytes()).hexdigest(),
        "files_sha256": of_folder(package),
    }


def test_anybody_can_compute_it_with_sha256sum(package):
    lines = "find fedpeft -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    printed = subprocess.run(lines, shell=True, cwd=package.parent, capture_output=True, text=True, check=True).stdout
    assert printed.split()[0] == of_folder(package)


@pytest.mark.parametrize(
    "change",
    [
        lambda package: (package / "config" / "run.py").write_text("edited"),
        lambda package: (package / "config" / "run.py").unlink(),
        lambda package: (package / "config" / "run.py").rename(package / "config" / "ran.py"),
        lambda package: (package / "models" / "weights" / "tiny.safetensors").write_bytes(b"others"),
        lambda package: (package / "more.py").write_text(""),
    ],
    ids=["edited", "lost", "renamed", "weights", "added"],
)
def test_every_change_shows(package, wheel, change):
    change(package)
    assert of_wheel(wheel)["files_sha256"] != of_folder(package)


def test_what_is_no_wheel_of_ours_is_refused(tmp_path):
    (tmp_path / "text.whl").write_text("text")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    for name in ("text.whl", "other.whl"):
        with pytest.raises(ValueError, match=rf"{name}.*admin/wheels.sh"):
            of_wheel(tmp_path / name)

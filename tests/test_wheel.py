"""What a hospital installs: the package with its weights, and nothing of the tests."""

import subprocess
import sys
import zipfile
from pathlib import Path


def test_the_wheel_holds_the_package_alone(tmp_path):
    source = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, source],
        check=True,
    )
    (wheel,) = tmp_path.glob("fedpeft-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"fedpeft"}
    assert "fedpeft/models/weights/sam_tiny.safetensors" in names
    assert not [name for name in names if "misbehaving" in name or "test" in name]

"""FLARE's own command on admin/project.yml, for the tests of what it makes."""

import json
import sys
import zipfile
from pathlib import Path

from nvflare import cli

REPOSITORY = Path(__file__).parents[1]
SERVER = "server.example.org"
HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")
PEOPLE = ("lead@example.org", "admin@example.org", "it@hospital-1.org")
SITES = (SERVER, *HOSPITALS)
POLICY = {f"{name}.json{end}" for name in ("authorization", "log_config", "resources") for end in ("", ".default")}
OURS = {"fedpeft_site.json", "fedpeft_wheel.json"}
WHEEL = "fedpeft-0.2.0-py3-none-any.whl"


def nvflare(folder, monkeypatch, *arguments):
    """FLARE's command in this process, run in ``folder``: importing torch again would cost more than provisioning."""
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["nvflare", *map(str, arguments)])
        patch.setattr(sys, "path", [*sys.path])
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0
    return 0


def made_wheel(path):
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fedpeft/__init__.py", "")


def provision(folder, monkeypatch, *arguments):
    project = REPOSITORY / "admin" / "project.yml"
    return nvflare(folder, monkeypatch, "provision", "-p", project, "-w", "kits", *arguments)


def provisioned(folder, monkeypatch):
    """Kits made in ``folder``, whose wheel has one file."""
    made_wheel(folder / "dist" / WHEEL)
    assert provision(folder, monkeypatch) == 0
    return folder / "kits" / "fedpeft" / "prod_00"


def read(kits, name, file):
    return json.loads((kits / name / "local" / file).read_text())


def files(folder):
    return {file.name for file in folder.iterdir()}

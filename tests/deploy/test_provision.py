"""The kits that FLARE's own command makes of admin/project.yml: what is in each, and what is in none."""

import hashlib
import json
import re
import socket
import sys
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from made_kits import PEOPLE, REPOSITORY, SERVER, SITES, WHEEL, files, provision, provisioned, read

from fedpeft.common.fingerprint import of_wheel
from fedpeft.deploy.provision import PolicyBuilder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder that the command was run in."""
    return tmp_path_factory.mktemp("consortium")


@pytest.fixture(scope="module")
def kits(root):
    with pytest.MonkeyPatch.context() as patch:
        return provisioned(root, patch)


def test_there_is_a_kit_for_everybody_and_the_wheel_beside_them(kits):
    assert files(kits) == {*SITES, *PEOPLE, "wheel"}


@pytest.mark.parametrize("name", [*SITES, *PEOPLE])
def test_every_kit_states_the_wheel(root, kits, name):
    wheel = root / "dist" / WHEEL
    fingerprint = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert read(kits, name, "fedpeft_wheel.json") == of_wheel(wheel) and of_wheel(wheel)["sha256"] == fingerprint
    assert (kits / "wheel" / "SHA256SUMS").read_text() == f"{fingerprint}  {WHEEL}\n"
    assert (kits / "wheel" / WHEEL).read_bytes() == wheel.read_bytes()


@pytest.mark.parametrize("name", [*SITES, *PEOPLE])
def test_a_kit_holds_its_own_private_key_and_no_other(kits, name):
    found = [file for file in (kits / name).rglob("*") if file.is_file() and b"PRIVATE KEY" in file.read_bytes()]
    role = "server" if name == SERVER else "client"
    (key,) = found
    assert key == kits / name / "startup" / f"{role}.key" and key.stat().st_mode & 0o077 == 0
    certificate = x509.load_pem_x509_certificate(key.with_suffix(".crt").read_bytes())
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
    mine = load_pem_private_key(key.read_bytes(), None).public_key()
    plain = {"encoding": Encoding.PEM, "format": PublicFormat.SubjectPublicKeyInfo}
    assert mine.public_bytes(**plain) == certificate.public_key().public_bytes(**plain)


def test_a_kit_says_nothing_of_the_machine_that_made_it(kits, root):
    words = {str(root), str(REPOSITORY), str(Path.home()), sys.prefix, socket.gethostname()} - {"localhost"}
    found = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words))
    for file in kits.rglob("*"):
        if file.is_file() and file.suffix not in {".crt", ".key", ".pem", ".whl"}:
            assert not found.search(file.read_text()), file


def test_flare_signs_no_part_of_these_kits(kits):
    """So local/ is the site's own to change, and nothing but the site's own care protects it."""
    assert not [file for file in kits.rglob("*") if file.name == "signature.json"]


def contents(kits):
    return {file.relative_to(kits): file.read_bytes() for file in kits.rglob("*") if file.is_file()}


def test_again_in_the_same_workspace_keeps_the_certificates(root, kits, monkeypatch):
    assert provision(root, monkeypatch) != 0, "without --force it does not overwrite"
    assert provision(root, monkeypatch, "--force") == 0
    assert contents(kits.with_name("prod_01")) == contents(kits)


def test_a_certificate_is_made_anew_when_it_is_taken_out_of_the_state(root, kits, monkeypatch):
    state = root / "kits" / "fedpeft" / "state" / "cert.json"
    known = json.loads(state.read_text())
    del known["hospital-2"]
    state.write_text(json.dumps(known))
    assert provision(root, monkeypatch, "--force") == 0
    before, after = contents(kits), contents(max(kits.parent.glob("prod_*")))
    changed = {str(name) for name in before if before[name] != after[name]}
    assert changed == {"hospital-2/startup/client.crt", "hospital-2/startup/client.key"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "holds none, expected one wheel of fedpeft; build it with admin/wheels.sh"),
        (
            [WHEEL, "fedpeft-0.3.0-py3-none-any.whl"],
            f"holds {WHEEL}, fedpeft-0.3.0-py3-none-any.whl, expected one wheel",
        ),
        ([WHEEL], "is no wheel; build one with admin/wheels.sh"),
    ],
)
def test_without_one_wheel_there_are_no_kits(names, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "dist").mkdir()
    for name in names:
        (tmp_path / "dist" / name).touch()
    assert provision(tmp_path, monkeypatch) != 0
    assert not list(tmp_path.glob("kits/fedpeft/prod_*")) and said in capsys.readouterr().err


def test_the_builder_comes_last():
    """It starts from the files that FLARE's builders write."""
    builders = yaml.safe_load((REPOSITORY / "admin" / "project.yml").read_text())["builders"]
    assert builders[-1]["path"] == f"{PolicyBuilder.__module__}.{PolicyBuilder.__name__}"

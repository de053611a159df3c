"""Kits as FLARE itself provisions them: read, and looked at on the server's, a client's and an admin's machine."""

import json
import shutil
import socket
import time

import pytest
from nvflare.lighter.provision import prepare_builders, prepare_project
from nvflare.lighter.provisioner import Provisioner
from planted import Server, free_port, red

from fedpeft.deploy.doctor.examine import examine, subject_of
from fedpeft.deploy.doctor.kit import read_kit
from fedpeft.deploy.doctor.network_checks import ask
from fedpeft.deploy.doctor.subject import Needs

PORT = free_port()
LIGHTER = "nvflare.lighter.impl"
PROJECT = {
    "api_version": 3,
    "name": "consortium",
    "description": "",
    "participants": [
        {"name": "localhost", "type": "server", "org": "hq", "fed_learn_port": PORT},
        {"name": "hospital-1", "type": "client", "org": "north"},
        {"name": "lead@hq.org", "type": "admin", "org": "hq", "role": "lead"},
    ],
    "builders": [
        {"path": f"{LIGHTER}.workspace.WorkspaceBuilder"},
        {"path": f"{LIGHTER}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
        {"path": f"{LIGHTER}.cert.CertBuilder"},
    ],
}
KITS = {"server": "localhost", "client": "hospital-1", "admin": "lead@hq.org"}
# What FLARE's own kits lack: our policy and the site file.
LACKS = {"server": {"allow-list", "site file"}, "client": {"allow-list", "site file"}, "admin": set()}


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("provisioned")
    project = prepare_project(PROJECT)
    Provisioner(str(workspace), prepare_builders(PROJECT)).provision(project)
    return workspace / "consortium" / "prod_00"


@pytest.fixture
def listening(kits):
    startup = kits / "localhost" / "startup"
    server = Server(startup)
    yield server
    server.close()


def examined(folder):
    return examine(subject_of(None, folder, None, Needs(disk_gib=0.001)))


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("server", "consortium"),
        ("client", "hospital-1"),
        ("admin", "lead@hq.org"),
    ],
)
def test_a_provisioned_kit_is_read(kits, role, name):
    kit = read_kit(kits / KITS[role])
    assert (kit.role, kit.name, kit.project, kit.server) == (role, name, "consortium", "localhost")
    assert (kit.host, kit.ports, kit.scheme, kit.security) == ("localhost", (PORT,), "http", "mtls")
    assert all(file.is_file() for file in (kit.certificate, kit.key, kit.root))


def test_a_person_of_flares_proof_of_concept_is_called_by_the_folder(kits, tmp_path):
    folder = shutil.copytree(kits / KITS["admin"], tmp_path / KITS["admin"])
    file = folder / "startup" / "fed_admin.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({"admin": values["admin"] | {"username": "", "uid_source": "cert"}}))
    assert read_kit(folder).name == KITS["admin"]


@pytest.mark.parametrize("role", KITS)
def test_every_machine_has_its_own_checks(kits, role):
    findings = examined(kits / KITS[role])
    assert red(findings) == LACKS[role] | (set() if role == "server" else {"server"}), findings
    names = {item.check for item in findings}
    assert ("server" in names) == (role != "server")
    assert (f"port {PORT}" in names) == (role == "server")
    assert {"GPU", "permit", "data", "state_dir"} <= names if role == "client" else not {"GPU", "data"} & names


@pytest.mark.parametrize("role", ["client", "admin"])
def test_the_server_is_met_with_flares_certificates(kits, listening, role):
    kit = read_kit(kits / KITS[role])
    before = time.time()
    answer = ask(kit, "127.0.0.1", listening.port)
    assert answer.name == "localhost"
    # The server tells whole seconds.
    assert abs(answer.skew) <= 0.5 + time.time() - before


def at_port(kits, folder, port):
    """The server's kit with another port."""
    (folder / "startup").mkdir(parents=True)
    for file in (kits / "localhost" / "startup").iterdir():
        (folder / "startup" / file.name).write_text(file.read_text().replace(str(PORT), str(port)))
    return folder


def test_the_servers_port_may_be_its_own(kits, listening, tmp_path):
    findings = {item.check: item for item in examined(at_port(kits, tmp_path / "kit", listening.port))}
    port = findings[f"port {listening.port}"]
    assert (port.state, port.found) == ("ok", "this kit's server listens")


def test_the_servers_port_may_be_anothers(kits, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        port = {item.check: item for item in examined(at_port(kits, tmp_path / "kit", taken))}[f"port {taken}"]
    assert (port.state, port.found) == ("fault", "another program listens")
    assert f"ss -ltnp 'sport = :{taken}'" in port.remedy

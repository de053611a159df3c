"""A hospital's machine that is in order, and a server that it reaches, so that faults can be planted one by one."""

import json
import socket
import ssl
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import fedpeft
from fedpeft.common.fingerprint import WHEEL, of_folder
from fedpeft.deploy.doctor.doctor import examine
from fedpeft.deploy.doctor.finding import FAULT, WARNING, Finding
from fedpeft.deploy.doctor.subject import Machine, Needs, Subject
from fedpeft.flare.rendering import ALLOW_LIST, policy
from fedpeft.training.client.site_file import NAME

SERVER, SITE, PROJECT = "server.example.org", "site-1", "consortium"
DAY = timedelta(days=1)


class Authority:
    """A project's root and what it signs."""

    def __init__(self, name=PROJECT):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.root = self.signed(self.name, self.key.public_key(), ca=True)

    def signed(self, subject, key, ca=False, first=-DAY, last=300 * DAY):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + first)
            .not_valid_after(now + last)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def write(self, startup, role, name, **dates):
        """``<role>.crt``, its key, and the root beside it."""
        startup.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        encoding = serialization.Encoding.PEM
        form = (encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        certificate = self.signed(subject, key.public_key(), **dates)
        (startup / f"{role}.crt").write_bytes(certificate.public_bytes(encoding))
        (startup / f"{role}.key").write_bytes(key.private_bytes(*form))
        (startup / "rootCA.pem").write_bytes(self.root.public_bytes(encoding))


class Server:
    """A double of FLARE's server: HTTP over mutual TLS on a local port, its clock ``clock_ahead`` by seconds."""

    def __init__(self, startup):
        outer, self.clock_ahead = self, 0.0

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_error(404)

            def date_time_string(self, timestamp=None):
                return super().date_time_string(datetime.now().timestamp() + outer.clock_ahead)

            def log_message(self, *_):
                pass

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=startup / "rootCA.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(startup / "server.crt", startup / "server.key")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        # A client that TLS turns away is what some tests are about; no traceback for it.
        self._http.handle_error = lambda *_: None
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@dataclass
class Place:
    """A client's machine: ``values`` and ``policy`` are written as its site file and resources.json when examined."""

    folder: Path
    authority: Authority
    server: Server
    values: dict
    policy: dict = field(default_factory=policy)
    machine: Machine = Machine(synchronised=lambda: True)
    needs: Needs = Needs(disk_gib=0.001)

    def __post_init__(self):
        self.authority.write(self.startup, "client", SITE)
        self.connect(self.server.port)
        write(self.local / WHEEL, {"wheel": "fedpeft-1.whl", "sha256": "ab", "files_sha256": of_folder(PACKAGE)})

    @property
    def startup(self):
        return self.folder / "startup"

    @property
    def local(self):
        return self.folder / "local"

    def connect(self, port, host="127.0.0.1", identity=SERVER):
        service = {"target": f"{host}:{port}", "scheme": "http"}
        own = {
            "ssl_private_key": "client.key",
            "ssl_cert": "client.crt",
            "ssl_root_cert": "rootCA.pem",
            "fqsn": SITE,
            "connection_security": "mtls",
        }
        servers = [{"name": PROJECT, "service": service, "identity": identity}]
        write(self.startup / "fed_client.json", {"servers": servers, "client": own})

    def need(self, **changes):
        self.needs = replace(self.needs, **changes)

    def examined(self) -> list[Finding]:
        write(self.local / NAME, self.values)
        write(self.local / "resources.json", self.policy)
        return examine(Subject(self.folder, self.local / NAME, None, self.needs, self.machine))


PACKAGE = Path(fedpeft.__file__).parent


def healthy_values(pictures: Path, folder: Path) -> dict:
    """A site file whose every entry is true."""
    weights = folder / "weights.pth"
    weights.write_bytes(b"weights")
    return {
        "version": 1,
        "datasets": {"images": str(pictures / "{site}" / "datalist.json")},
        "checkpoints": {"vit_b16": {"path": str(weights), "sha256": sha256(b"weights").hexdigest()}},
        "device": "cpu",
        "state_dir": str(folder / "state"),
        "permit": {"methods": ["lora"], "max_upload_bytes": 10_000_000},
    }


def write(file: Path, values) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))


def red(findings) -> set[str]:
    return {item.check for item in findings if item.state == FAULT}


def yellow(findings) -> set[str]:
    return {item.check for item in findings if item.state == WARNING}


def installed(folder: Path, name: str, version: str, *lines: str) -> Path:
    """A folder to put before all others on Python's path: there the package has another version or metadata."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]))
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def site_file(**changes):
    """Plants fields in the site file."""
    return lambda place, patch: place.values.update(changes)


def allow(*more, without=None):
    """Plants an allow-list that has more than ours, or lacks a class."""
    return lambda place, patch: place.policy.update(
        class_allow_list=[*(name for name in ALLOW_LIST if name != without), *more]
    )

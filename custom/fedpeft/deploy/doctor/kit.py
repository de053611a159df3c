"""Read a participant's startup kit, which ``nvflare provision`` writes: its role, names, server and certificates."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpeft.common.files import read_json

CLIENT, SERVER, ADMIN = "client", "server", "admin"
SSL = ("ssl_cert", "ssl_private_key", "ssl_root_cert")


@dataclass(frozen=True)
class Kit:
    """A participant's startup kit.

    Attributes:
        folder: folder that contains startup/ and local/.
        role: "client", "server" or "admin".
        name: FLARE's name for the participant; it replaces ``{site}`` in a site file.
        project: the consortium's name; a kit of another project cannot join.
        host: the server's host.
        ports: the server's ports for clients and for the admin console, often the same one.
        server: the name in the server's certificate.
        scheme: scheme of the transport; FLARE's default is "http", over TLS.
        security: "mtls", "tls" or "clear".
        certificate, key, root: files below startup/.
    """

    folder: Path
    role: str
    name: str
    project: str
    host: str
    ports: tuple[int, ...]
    server: str
    scheme: str
    security: str
    certificate: Path
    key: Path
    root: Path


def read_kit(folder: Path) -> Kit:
    """Read the kit in a folder.

    Raises:
        ValueError: there is no kit, or its file lacks a key; the message names the file and the key.
    """
    for role, read in _READERS.items():
        file = folder / "startup" / f"fed_{role}.json"
        if file.is_file():
            try:
                return read(folder, read_json(file))
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                raise ValueError(f"{file}: {error} is missing or has another form; have the kit made again") from error
    names = ", ".join(f"fed_{role}.json" for role in _READERS)
    raise ValueError(f"{folder}/startup holds none of {names}; give the folder that holds startup/ and local/")


def _client(folder: Path, values: dict[str, Any]) -> Kit:
    server, own = values["servers"][0], values["client"]
    host, _, port = server["service"]["target"].rpartition(":")
    name, how = own["fqsn"].rpartition("/")[2], (server["service"]["scheme"], own["connection_security"])
    return Kit(
        folder, CLIENT, name, server["name"], host, (int(port),), server["identity"], *how, *_files(folder, own, *SSL)
    )


def _server(folder: Path, values: dict[str, Any]) -> Kit:
    own = values["servers"][0]
    host, _, port = own["service"]["target"].rpartition(":")
    ports, how = tuple(sorted({int(port), own["admin_port"]})), (own["service"]["scheme"], own["connection_security"])
    # A server's file has the project's name where a client's has the client's own.
    name = own["name"]
    return Kit(folder, SERVER, name, name, host, ports, own["admin_server"], *how, *_files(folder, own, *SSL))


def _admin(folder: Path, values: dict[str, Any]) -> Kit:
    own = values["admin"]
    # FLARE's proof of concept leaves this field empty; the folder has the same name.
    name = own["username"] or folder.absolute().name
    who = (name, own["project_name"], own["host"], (own["port"],), own["server_identity"])
    how = (own["scheme"], own["connection_security"])
    return Kit(folder, ADMIN, *who, *how, *_files(folder, own, "client_cert", "client_key", "ca_cert"))


def _files(folder: Path, values: dict[str, Any], *keys: str) -> tuple[Path, ...]:
    return tuple(folder / "startup" / values[key] for key in keys)


_READERS: dict[str, Callable[[Path, dict[str, Any]], Kit]] = {CLIENT: _client, SERVER: _server, ADMIN: _admin}

"""A machine in order for ``fedpeft doctor``."""

import shutil

import pytest
from planted import SERVER, Authority, Place, Server, healthy_values


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.fixture(scope="session")
def flare_server(authority, tmp_path_factory):
    startup = tmp_path_factory.mktemp("server") / "startup"
    authority.write(startup, "server", SERVER)
    server = Server(startup)
    yield server
    server.close()


@pytest.fixture
def place(authority, flare_server, small_images, tmp_path):
    """A client's machine in order, for ``fedpeft doctor``; its server is a double on this machine."""
    shutil.copytree(small_images, tmp_path / "data")
    yield Place(tmp_path / "kit", authority, flare_server, healthy_values(tmp_path / "data", tmp_path))
    flare_server.clock_offset = 0.0

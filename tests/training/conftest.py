"""One small run and a site for it."""

from pathlib import Path

import pytest

from fedpeft.config.run import Run, make_run
from fedpeft.data.datalist import Site, read_site
from fedpeft.models.checkpoints.reading import shipped


@pytest.fixture(scope="session")
def run() -> Run:
    return make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=2, image_size=32)


@pytest.fixture(scope="session")
def checkpoint(run) -> Path:
    return shipped(run.backbone)


@pytest.fixture(scope="session")
def site(small_phantom) -> Site:
    return read_site(small_phantom / "site-1")

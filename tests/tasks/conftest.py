"""A small run of each task."""

import pytest

from fedpeft.config.run import Run, make_run
from fedpeft.data.datalist import Site, read_site


@pytest.fixture(scope="session")
def run() -> Run:
    return make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=2, image_size=32)


@pytest.fixture(scope="session")
def classifying() -> Run:
    return make_run("lora", "images", "vit_tiny", classes=3, rounds=4, image_size=32, batch=4, initial="random")


@pytest.fixture(scope="session")
def site(small_phantom) -> Site:
    return read_site(small_phantom / "site-1")


@pytest.fixture(scope="session")
def photos(small_images) -> Site:
    return read_site(small_images / "site-1")

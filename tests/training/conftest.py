"""One small run and a site for it."""

from pathlib import Path

import pytest
from toy_parameters import RUN, copied, toy

from fedpeft.config.run import Run, make_run
from fedpeft.data.datalist import Site, read_site
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.models.payload import trainable


@pytest.fixture(scope="session")
def run() -> Run:
    return make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=2, image_size=32)


@pytest.fixture(scope="session")
def checkpoint(run) -> Path:
    return shipped(run.backbone)


@pytest.fixture(scope="session")
def site(small_phantom) -> Site:
    return read_site(small_phantom / "site-1")


@pytest.fixture(params=["toy", "model"])
def parameters(request, checkpoint):
    return toy() if request.param == "toy" else copied(trainable(build(RUN, checkpoint)))

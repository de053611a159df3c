"""A finished run of one site, shared: nothing here changes it."""

import pytest

from fedpeft.data.datalist import read_sites
from fedpeft.model.checkpoint import shipped
from fedpeft.spec.run import Run
from fedpeft.train.alone import train_alone
from fedpeft.train.run_folder import RunFolder

RUN = Run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=1, side=32)


@pytest.fixture(scope="session")
def run() -> Run:
    return RUN


@pytest.fixture(scope="session")
def checkpoint():
    return shipped(RUN.backbone_row)


@pytest.fixture(scope="session")
def finished(small_phantom, checkpoint, tmp_path_factory) -> RunFolder:
    out = tmp_path_factory.mktemp("finished") / "run"
    return train_alone(RUN, read_sites(small_phantom)[0], checkpoint, out, "local", lambda record: None)

"""A finished run of one site, shared, and the command as a function."""

import pytest

from fedpeft.cli.main import main
from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_sites
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.training.server.alone import train_alone
from fedpeft.training.server.run_folder import RunFolder

RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=1, image_size=32)


@pytest.fixture(scope="session")
def finished(small_phantom, tmp_path_factory) -> RunFolder:
    out = tmp_path_factory.mktemp("finished") / "run"
    return train_alone(RUN, read_sites(small_phantom)[0], shipped(RUN.backbone), out, "local", lambda record: None)


@pytest.fixture
def fedpeft(capsys):
    """A function of arguments that gives (exit code, what was printed, what was complained of)."""

    def called(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return called

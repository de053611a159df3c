"""Runs and comparisons of tiny phantoms, shared: nothing here changes them."""

import shutil
from pathlib import Path

import pytest
from doubles import Here

from fedpeft.config.run import Run, make_run
from fedpeft.data.datalist import read_sites
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.study.plan.experiments import Plan
from fedpeft.study.run import compare as study
from fedpeft.study.run import work
from fedpeft.study.run.compare import compare
from fedpeft.tasks.scores import PLAIN
from fedpeft.training.server.in_process import train_in_process
from fedpeft.training.server.run_folder import RunFolder

RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=1, image_size=32)


@pytest.fixture(scope="session")
def run() -> Run:
    return RUN


@pytest.fixture(scope="session")
def checkpoint():
    return shipped(RUN.backbone)


@pytest.fixture(scope="session")
def finished(small_phantom, checkpoint, tmp_path_factory) -> RunFolder:
    out = tmp_path_factory.mktemp("finished") / "run"
    return train_in_process(RUN, read_sites(small_phantom)[:1], checkpoint, out, "local")


@pytest.fixture(scope="session")
def two_sites(small_phantom, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "two"
    for name in ("site-1", "site-2"):
        shutil.copytree(small_phantom / name, root / name)
    return root


@pytest.fixture
def here(monkeypatch):
    """Comparisons work in this process: the start of others would take most of a test's time."""
    monkeypatch.setattr(study, "ProcessPoolExecutor", Here)


@pytest.fixture(scope="session")
def compared(two_sites, checkpoint, tmp_path_factory):
    """A finished comparison of local and centralized training: plan and results."""
    plan = Plan(two_sites, tmp_path_factory.mktemp("compare"), checkpoint, seconds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "ProcessPoolExecutor", Here)
        return plan, compare(plan, [RUN], ["local", "centralized"], lambda progress, event: None)


@pytest.fixture
def again(compared, run, here, monkeypatch, tmp_path):
    """A copy of the comparison, and a function that compares once more and names what was trained and tested."""
    plan, _ = compared
    out = tmp_path / "out"
    shutil.copytree(plan.out, out)
    done = []

    def noted(name, function):
        def call(plan, experiment, *rest):
            done.append(f"{name} {experiment.name}")
            return function(plan, experiment, *rest)

        monkeypatch.setattr(work, function.__name__, call)

    noted("train", work._alone)
    noted("test", work._scores)

    def once_more(
        runs=(run,), settings=("local", "centralized"), data=plan.data, split="test", report=print, scoring=PLAIN
    ):
        done.clear()
        wanted = Plan(data, out, plan.checkpoint, 1, split=split, scoring=scoring)
        results = compare(wanted, list(runs), list(settings), report)
        return list(done), results

    return out, once_more

"""Faults of a site's trainer, disk and patience on real processes over mTLS, and what becomes of the run.

The other rows of the table, and what it says, are in test_survival_server.py.
"""

import shutil
import weakref
from contextlib import ExitStack
from signal import SIGKILL

import psutil
import pytest
from consortium import Consortium
from disks import remount, small_disk
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from test_survival_server import FAULTS, LIMIT, RUN, TWO, Federation, Outcome

from fedpeft.deploy.launcher import RESTARTS
from fedpeft.flare.executor import SiteExecutor

DONE = ("FINISHED:COMPLETED",)
FAULTS.update(
    {
        "a trainer is killed in a round": Outcome(DONE, {}, ()),
        "a trainer is killed again and again": Outcome(
            DONE, {"hospital-2": tuple(range(1, RUN.federation.rounds))}, ()
        ),
        "a site's disk is full for a round": Outcome(DONE, {"hospital-2": (0,)}, ()),
    }
)


@pytest.fixture
def federation(small_phantom, tmp_path):
    """A function that starts two sites on a job, held in a round of one of them; all processes end with the test."""
    with ExitStack() as stack:

        def make(site, round_, **fields):
            data = tmp_path / "data"
            for index, name in enumerate(TWO):
                shutil.copytree(small_phantom / f"site-{index + 1}", data / name)
            made = Federation(stack.enter_context(Consortium(tmp_path / "consortium", TWO, data=data)), data, **fields)
            made.hold(site, round_)
            made.consortium.start("server")
            made.start(*TWO)
            return made, made.submit()

        yield make


class Round:
    """Stands for a trainer, which holds itself in its own functions."""


def killed(made, site):
    """The process that was there: the site's trainer, ended as the OOM killer ends it."""
    process = made.consortium.job_process(site)
    process.send_signal(SIGKILL)
    return process


def test_a_killed_trainer_repeats_its_round(federation):
    made, job = federation("hospital-2", 1)
    with made.decoded("hospital-2", 1):
        killed(made, "hospital-2")
    made.comes_to("a trainer is killed in a round", job)
    log = made.consortium.log("hospital-2")
    assert log.count(f"job {job} was ended by signal 9 (Killed); it is started again (1 of {RESTARTS})") == 1
    assert "out of memory" in log


def test_a_trainer_leaves_its_memory_when_a_job_is_over():
    executor, trainer = SiteExecutor(), Round()
    trainer.itself, executor._trainer, left = trainer, trainer, weakref.ref(trainer)
    del trainer
    executor.handle_event(EventType.ABOUT_TO_END_RUN, FLContext())
    assert left()
    executor.handle_event(EventType.END_RUN, FLContext())
    assert left() is None


@pytest.mark.slow
def test_a_trainer_that_dies_again_and_again_leaves_the_job_to_the_others(federation):
    made, job = federation("hospital-2", 1, min_sites=1)
    for _ in range(RESTARTS + 1):
        with made.decoded("hospital-2", 1):
            made.hold_folder.joinpath("held-hospital-2-1").unlink()
            killed(made, "hospital-2")
        made.hold("hospital-2", 1)
    made.comes_to("a trainer is killed again and again", job)
    assert f"for the {RESTARTS + 1}th time, so this site leaves the job" in made.consortium.log("hospital-2")


@pytest.mark.slow
def test_a_full_disk_costs_the_site_its_rounds_until_it_has_space(federation, tmp_path):
    with small_disk(tmp_path / "consortium" / "state" / "hospital-2", "64k") as disk:
        made, job = federation("hospital-2", 1, min_sites=1)
        with made.decoded("hospital-2", 1):
            assert not list(disk.rglob("*.safetensors")) and not list(disk.rglob(".*"))
            remount(disk, "size=8m")
        made.comes_to("a site's disk is full for a round", job)
        first, *_ = made.consortium.run_folder(job).rounds()
        reason = first["refused"]["hospital-2"]
        assert "OSError: No space left on device" in reason and "/" not in reason
        assert f"free space on that disk, or let this account write there: '{disk}" in made.consortium.log("hospital-2")


@pytest.mark.slow
def test_an_aborted_job_leaves_no_trainer(federation):
    made, job = federation("hospital-2", 1)
    with made.decoded("hospital-2", 1):
        process = made.consortium.job_process("hospital-2")
        made.consortium.admin().abort(job)
        gone, alive = psutil.wait_procs([process], timeout=LIMIT)
        assert gone and not alive
    assert made.consortium.wait(job)["status"] == "FINISHED:ABORTED"
    log = made.consortium.log("hospital-2")
    assert "Client is stopping" in log and "started again" not in log
    assert not any("worker_process" in " ".join(item.cmdline()) for item in made.consortium.processes("hospital-2"))

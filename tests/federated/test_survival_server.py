"""Faults of server, sites and network on real processes over mTLS, and what becomes of the run.

FAULTS says for each what the run must come to. Weights are those of a federation without FLARE in one process
(``by_hand.py``), in which the sites that a round lacks are left out.
"""

import json
import os
import re
import shutil
import signal
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import pytest
import torch
from by_hand import by_hand
from consortium import Consortium
from misbehaving.holding import FOLDER
from proxy import Proxy

from fedpeft.common.files import read_json, write_json
from fedpeft.config.jobs import Job
from fedpeft.config.run import make_run
from fedpeft.deploy.continuation import CONTINUED_BY
from fedpeft.flare.rendering import write

HOLDING = "misbehaving.holding.HoldingExecutor"
RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=4, image_size=32)
TWO, THREE = ("hospital-1", "hospital-2"), ("hospital-1", "hospital-2", "hospital-3")
CUT = 30
# Seconds after which a test gives up: generous, and nothing is concluded from them.
LIMIT = 400


@dataclass(frozen=True)
class Outcome:
    """What becomes of a run; every one finishes with all its rounds.

    Attributes:
        jobs: FLARE's status of each of its jobs, in order.
        away: site -> rounds that it missed; the weights are those of a run without it in these.
        continued_after: rounds that were done each time the next job took over.
    """

    jobs: tuple[str, ...]
    away: dict[str, tuple[int, ...]]
    continued_after: tuple[int, ...]


FAULTS = {
    "the server's process is killed in a round": Outcome(("FINISHED:ABNORMAL", "FINISHED:COMPLETED"), {}, (2,)),
    "a site is started late": Outcome(("FINISHED:COMPLETED", "FINISHED:COMPLETED"), {"hospital-2": (0,)}, (1,)),
    "a site is stopped for two rounds": Outcome(
        ("FINISHED:COMPLETED", "FINISHED:COMPLETED"), {"hospital-3": (1, 2)}, (3,)
    ),
    "too few sites are left, until one returns": Outcome(
        ("FINISHED:EXECUTION_EXCEPTION", "FINISHED:COMPLETED"), {}, (1,)
    ),
    "the job is aborted, and cloned by the lead": Outcome(("FINISHED:ABORTED", "FINISHED:COMPLETED"), {}, (1,)),
    "the network is cut for 30 s": Outcome(("FINISHED:COMPLETED",), {}, ()),
}


class Federation:
    """A consortium that works on one job whose rounds the test can hold."""

    def __init__(self, consortium, data, **fields):
        self.consortium, self.data, self.hold_folder = consortium, data, consortium.folder / "hold"
        self.hold_folder.mkdir()
        for name in consortium.sites:
            for end in ("", ".default"):
                file = consortium.kit(name) / "local" / f"resources.json{end}"
                found = read_json(file)
                write_json(file, found | {"class_allow_list": [*found["class_allow_list"], HOLDING]})
        row = {"min_sites": 2, "round_seconds": 900, "straggler_seconds": 600, "lost_seconds": 8, "poll_seconds": 0.2}
        self.job_folder = write(Job("survival", RUN, **row | fields), consortium.folder / "jobs")
        file = self.job_folder / "app" / "config" / "config_fed_client.json"
        content = json.loads(file.read_text())
        content["executors"][0]["executor"]["path"] = HOLDING
        file.write_text(json.dumps(content))

    def start(self, *sites):
        path = os.path.dirname(__file__)
        self.consortium.start(*sites, **{FOLDER: str(self.hold_folder), "PYTHONPATH": path})

    def submit(self):
        return self.consortium.submit(self.job_folder)

    @contextmanager
    def decoded(self, site, round_):
        """The site stands still in the middle of the round while the test does something; ``hold`` it before."""
        end = time.monotonic() + LIMIT
        while not (self.hold_folder / f"held-{site}-{round_}").exists():
            assert time.monotonic() < end, f"{site} did not come to round {round_}: {self.consortium.log(site)[-3000:]}"
            time.sleep(0.1)
        yield
        (self.hold_folder / f"hold-{site}-{round_}").unlink()

    def hold(self, site, round_):
        (self.hold_folder / f"hold-{site}-{round_}").touch()

    def comes_to(self, fault, job, *statuses):
        """Follow the run to its end and compare it with its line of the table, after jobs that ended before."""
        outcome, statuses = FAULTS[fault], [*statuses]
        while job:
            self.consortium.wait(job, LIMIT)
            # FLARE says that a job has ended before it lets anybody continue it.
            time.sleep(3)
            meta = self.consortium.meta(job)
            statuses.append(meta["status"])
            last, job = job, meta.get(CONTINUED_BY)
        folder = self.consortium.run_folder(last)
        description, sites = folder.description, self.consortium.sites
        assert (description["status"], description["rounds_done"]) == ("finished", RUN.federation.rounds), description
        assert tuple(statuses) == outcome.jobs
        assert tuple(description["continued_after"]) == outcome.continued_after
        there = [
            {site for site in sites if round_ not in outcome.away.get(site, ())}
            for round_ in range(RUN.federation.rounds)
        ]
        assert [set(item["sites"]) for item in folder.rounds()] == there
        assert [item["round"] for item in folder.rounds()] == list(range(RUN.federation.rounds))
        away = {(site, round_) for site, rounds in outcome.away.items() for round_ in rounds}
        expected = by_hand(RUN, self.data, self.data / "state", sites, away)
        found = folder.tensors()
        assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


@pytest.fixture
def federation(small_phantom, tmp_path):
    """A function that makes a federation of some sites; all processes end with the test."""
    with ExitStack() as stack:

        def make(sites, **fields):
            data = tmp_path / "data"
            for index, name in enumerate(sites):
                shutil.copytree(small_phantom / f"site-{index + 1}", data / name)
            consortium = stack.enter_context(Consortium(tmp_path / "consortium", sites, data=data))
            return Federation(consortium, data, **fields)

        yield make


def test_a_killed_server_resumes_by_itself(federation):
    made = federation(TWO)
    made.hold("hospital-1", 2)
    made.consortium.start("server", daemon=True)
    made.start(*TWO)
    job = made.submit()
    with made.decoded("hospital-1", 2):
        os.kill(int((made.consortium.kit("server") / "pid.fl").read_text()), signal.SIGKILL)
        made.consortium.await_log("server", "start fl because process of")
    made.comes_to("the server's process is killed in a round", job)


def test_a_late_site_enters(federation):
    made = federation(TWO, min_sites=1)
    made.hold("hospital-1", 0)
    made.consortium.start("server")
    made.start("hospital-1")
    job = made.submit()
    with made.decoded("hospital-1", 0):
        made.start("hospital-2")
    made.comes_to("a site is started late", job)


@pytest.mark.slow
def test_a_site_that_was_stopped_enters_again(federation):
    made = federation(THREE)
    made.hold("hospital-3", 1)
    made.hold("hospital-1", 2)
    made.consortium.start("server")
    made.start(*THREE)
    job = made.submit()
    with made.decoded("hospital-3", 1):
        made.consortium.kill("hospital-3")
    with made.decoded("hospital-1", 2):
        made.start("hospital-3")
    made.comes_to("a site is stopped for two rounds", job)


@pytest.mark.slow
def test_a_run_of_too_few_sites_goes_on_when_one_returns(federation):
    made = federation(TWO)
    made.hold("hospital-2", 1)
    made.consortium.start("server")
    made.start(*TWO)
    job = made.submit()
    with made.decoded("hospital-2", 1):
        made.consortium.kill("hospital-2")
        made.consortium.wait(job, LIMIT)
    made.start("hospital-2")
    made.comes_to("too few sites are left, until one returns", job)


@pytest.mark.slow
def test_an_aborted_run_goes_on_when_the_lead_clones_its_job(federation):
    made = federation(TWO)
    made.hold("hospital-1", 1)
    made.consortium.start("server")
    made.start(*TWO)
    job = made.submit()
    with made.decoded("hospital-1", 1):
        made.consortium.admin().abort(job)
        ended = made.consortium.wait(job, LIMIT)["status"]
    cloned = re.search(rf"Cloned job {job} as: (\S+)", made.consortium.console(f"clone_job {job}"))[1]
    made.comes_to("the job is aborted, and cloned by the lead", cloned, ended)


@pytest.mark.slow
def test_a_cut_network_is_waited_for(federation):
    made = federation(TWO, lost_seconds=60)
    with closing(Proxy(made.consortium.port)) as proxy:
        for name in TWO:
            file = made.consortium.kit(name) / "startup" / "fed_client.json"
            file.write_text(file.read_text().replace(str(made.consortium.port), str(proxy.port)))
        made.hold("hospital-1", 1)
        made.consortium.start("server")
        made.start(*TWO)
        job = made.submit()
        with made.decoded("hospital-1", 1):
            proxy.cut()
            time.sleep(CUT)
            proxy.mend()
        made.comes_to("the network is cut for 30 s", job)

"""Failing experiments, killed workers, comparisons that get in each other's way: what is kept and what is said."""

import shutil
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import doubles
import pytest

from fedpeft.study.plan.experiments import only_one
from fedpeft.study.run import compare as study
from fedpeft.study.run import work


def test_a_failing_experiment_is_named_and_costs_no_other_one(compared, again, monkeypatch):
    out, once_more = again
    before = (out / "results.json").read_bytes()
    shutil.rmtree(out / "flap_sam")

    def broken(plan, experiment, folder, original=work._alone):
        if experiment.site == "site-1":
            raise ValueError("image.nii.gz is damaged")
        original(plan, experiment, folder)

    events = []
    with monkeypatch.context() as patch:
        patch.setattr(work, "_alone", broken)
        with pytest.raises(RuntimeError) as caught:
            once_more(settings=["local"], report=lambda progress, event: events.append(event))
    text = str(caught.value)
    assert "1 of 3 experiments failed" in text and "same command again" in text
    assert text.endswith("flap_sam, seed 0, local site-1: image.nii.gz is damaged")
    assert "flap_sam, seed 0, local site-1: failed: image.nii.gz is damaged" in events
    assert (out / "results.json").read_bytes() == before
    name = "flap_sam, seed 0, local site-1"
    done, results = once_more(settings=["local"])
    assert done == [f"train {name}", f"test {name}"]
    assert results["runs"][0]["models"].items() <= compared[1]["runs"][0]["models"].items()


def test_a_defect_is_not_made_a_users_fault(again, monkeypatch):
    out, once_more = again
    shutil.rmtree(out / "flap_sam")

    def broken(*args):
        raise KeyError("qkv")

    monkeypatch.setattr(work, "_alone", broken)
    with pytest.raises(KeyError) as caught:
        once_more(settings=["centralized"])
    assert "flap_sam, seed 0, centralized" in caught.value.__notes__[0]


def test_a_killed_worker_process_is_told_with_the_likely_reason(again, monkeypatch):
    out, once_more = again
    shutil.rmtree(out / "flap_sam")

    class Broken(doubles.Here):
        def submit(self, function, *args):
            if self.given:
                raise BrokenProcessPool("terminated abruptly")
            self.given.append(function)
            future = Future()
            future.set_exception(BrokenProcessPool("terminated abruptly"))
            return future

    monkeypatch.setattr(study, "ProcessPoolExecutor", Broken)
    with pytest.raises(
        RuntimeError, match="2 of 2 experiments failed.*initial: a worker .*memory.*centralized: a worker"
    ):
        once_more(settings=["centralized"])


def test_a_second_comparison_is_kept_out_of_the_folder(again):
    out, once_more = again
    with only_one(out), pytest.raises(RuntimeError, match="another comparison works in"):
        once_more()
    assert once_more()[0] == []


def test_a_comparison_that_is_interrupted_ends_its_processes(monkeypatch, run):
    ended = []
    monkeypatch.setattr(study, "end_all", ended.append)
    with pytest.raises(KeyboardInterrupt), study.Workers(1, None):
        raise KeyboardInterrupt
    assert ended == [[]]

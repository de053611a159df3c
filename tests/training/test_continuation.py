"""What a run needs to go on in another job: kept whole, restored to the byte, written by its last job alone."""

import os

import pytest
import torch

from fedpeft.models.initial import build
from fedpeft.models.payload import trainable
from fedpeft.training.server.continuation import ATTEMPTS, RunStates
from fedpeft.training.server.run_folder import RunFolder
from fedpeft.training.server.selection import Best
from fedpeft.training.server.server_round import ServerRound, SiteUpdate

RECORD = {"sites": {"a": {}, "b": {}}}


@pytest.fixture
def tensors(run):
    return {key: p.detach().clone() for key, p in trainable(build(run, None)).items()}


@pytest.fixture
def folder(run, tmp_path):
    made = RunFolder(tmp_path / "job" / "run")
    made.start(run, "federated", "checkpoint", "model")
    return made


@pytest.fixture
def state(tmp_path):
    return RunStates(tmp_path / "kit").begin("A")


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_run_is_found_by_each_of_its_jobs_and_by_no_other(state, tmp_path):
    state.append("B")
    states = RunStates(tmp_path / "kit")
    assert len(state.run_key) == 32 and int(state.run_key, 16) >= 0
    assert [states.of(job).run_key for job in "AB"] == [state.run_key] * 2
    assert states.of("C") is None and RunStates(tmp_path / "elsewhere").of("A") is None


def test_the_next_job_gets_the_run_as_it_was_after_the_last_finished_round(state, folder, tensors, tmp_path):
    for round_ in range(2):
        folder.metrics(round_, "validation", {"a": {"organ": 0.5}})
        folder.keep_best(tensors, Best(round_, 0.5))
        folder.record(round_, RECORD, tensors)
        state.keep("A", folder, round_ + 1)
    after_two = contents(folder.path)
    # The server is killed in the third: whatever stood in the job's own folder then does not count.
    folder.keep_best({key: tensor + 1 for key, tensor in tensors.items()}, Best(2, 0.6))
    state.append("B")
    assert state.restore(tmp_path / "next")
    assert contents(tmp_path / "next") == after_two
    assert state.rounds_done == 2 and state.sites == {"a", "b"} and state.continued_after == [2]


def test_before_the_first_finished_round_there_is_nothing_to_restore(state, tmp_path):
    state.starts({"a", "b", "c"})
    state.append("B")
    assert not state.restore(tmp_path / "next") and not (tmp_path / "next").exists()
    assert state.rounds_done == 0 and state.sites == {"a", "b", "c"} and state.continued_after == [0]


@pytest.mark.parametrize("leftover", [".round-00002", "round-00001"])
def test_a_copy_that_a_kill_interrupted_does_not_count(state, folder, tensors, leftover):
    folder.record(0, RECORD, tensors)
    state.keep("A", folder, 1)
    (state.folder / leftover).mkdir(exist_ok=True)
    (state.folder / leftover / "half").touch()
    assert state.rounds_done == 1
    folder.record(1, RECORD, tensors)
    state.keep("A", folder, 2)
    assert {item.name for item in state.folder.glob("*round-*")} == {"round-00002"}
    assert contents(state.folder / "round-00002") == contents(folder.path)


def test_a_job_that_was_taken_over_writes_no_more(state, folder, tensors):
    folder.record(0, RECORD, tensors)
    state.note("A", "running")
    state.append("B")
    with pytest.raises(RuntimeError, match="has gone on in job B; job A must not write"):
        state.keep("A", folder, 1)
    state.note("A", "finished")
    assert state.status("A") == "running" and state.status("B") is None and state.rounds_done == 0


def test_jobs_without_progress_are_counted_and_a_finished_round_counts_anew(state, folder, tensors):
    for job in range(ATTEMPTS - 1):
        assert not state.stuck
        state.append(str(job))
    assert state.stuck
    folder.record(0, RECORD, tensors)
    state.keep(str(ATTEMPTS - 2), folder, 1)
    assert not state.stuck


def test_a_site_is_awaited_until_the_next_job_starts(state):
    assert not state.awaited
    state.await_site()
    assert state.awaited
    state.append("B")
    state.starts({"a"})
    assert not state.awaited


def test_runs_that_nobody_touched_for_a_month_are_forgotten(state, tmp_path):
    states = RunStates(tmp_path / "kit")
    kept, fresh = states.begin("B"), states.begin("C")
    for old in (state, kept):
        os.utime(old.folder / "jobs.json", (0, 0))
    states.forget_old(unless={"B"})
    assert [item.folder.exists() for item in (state, kept, fresh)] == [False, True, True]


@pytest.mark.parametrize(
    ("changes", "model", "said"),
    [
        ({}, "model", None),
        ({"rounds": 77}, "model", "run was"),
        ({}, "other", "model was model, is other"),
    ],
)
def test_a_run_goes_on_as_it_began_or_not_at_all(folder, changes, model, said):
    run = folder.run.with_(**changes)
    if said is None:
        return folder.expect(run, "checkpoint", model)
    with pytest.raises(ValueError, match=said):
        folder.expect(run, "checkpoint", model)


def test_the_servers_state_goes_on_with_its_best_model_and_patience(folder, run, tensors):
    server = ServerRound(run.with_(patience=2, rounds=9, codec="int8"))
    state, update = server.begin(tensors), {key: torch.full_like(value, 1e-4) for key, value in tensors.items()}
    for mean in (0.5, 0.4):
        before, report = state, {"cases": 3, "loss": 0.5, "dice": {"organ": mean}}
        state, record = server(before, {"a": SiteUpdate(update, report)})
        folder.keep_round(before, state, record)
    again = RunFolder(folder.path).state()
    assert (again.rounds_done, again.best) == (2, Best(0, 0.5)) and not server.is_over(again)
    for name in ("exact", "decoded"):
        found, expected = getattr(again, name), getattr(state, name)
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    assert any(not torch.equal(again.exact[key], again.decoded[key]) for key in tensors)
    again, _ = server(again, {"a": SiteUpdate(update, {"cases": 3, "loss": 0.5, "dice": {"organ": 0.5}})})
    assert server.is_over(again) and again.best == Best(0, 0.5)

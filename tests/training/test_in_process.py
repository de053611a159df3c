"""Training in one process, end to end: the run folder tells the truth, and twice gives the same."""

import csv
from dataclasses import replace

import pytest
import torch

from fedpeft.common.files import sha256_of
from fedpeft.models.initial import build, fingerprint
from fedpeft.models.payload import trainable
from fedpeft.training.client.state import OptimiserState, StateFolder
from fedpeft.training.server.in_process import train_in_process
from fedpeft.training.server.run_folder import BEST, DESCRIPTION, GLOBAL, METRICS, RunFolder


@pytest.fixture
def train(run, site, checkpoint, tmp_path):
    """A function that trains into a named folder."""

    def trained(name, site=site, **changes):
        return train_in_process(run.with_(**changes), [site], checkpoint, tmp_path / name, "local")

    return trained


@pytest.fixture(scope="module")
def reported(run, site, checkpoint, tmp_path_factory):
    """A finished run of two rounds, and what was reported meanwhile."""
    reports = []
    out = tmp_path_factory.mktemp("alone") / "run"
    return train_in_process(run, [site], checkpoint, out, "local", reports.append), reports


def test_two_rounds_finish_and_the_folder_tells_the_truth(reported, run, checkpoint):
    folder, reports = reported
    found = folder.description
    assert (found["status"], found["rounds_done"], found["setting"]) == ("finished", 2, "local")
    assert found["checkpoint"] == {"backbone": "sam_tiny", "sha256": sha256_of(checkpoint)}
    assert found["model_sha256"] == fingerprint(build(run, checkpoint))
    records = folder.rounds()
    assert records == reports
    assert [record["round"] for record in records] == [0, 1]
    assert all(0 < record["sites"]["site-1"]["loss"] < 2 for record in records)
    assert all(record["sites"]["site-1"]["cases"] == 2 for record in records)
    initial = trainable(build(run, checkpoint))
    assert all(not torch.equal(tensor, initial[key]) for key, tensor in folder.tensors().items())


def test_moments_are_not_left_behind(train, tmp_path):
    train("one", rounds=1)
    assert [file.name for file in tmp_path.iterdir()] == ["one"]


def test_moments_of_a_killed_run_are_not_taken_up(reported, train, tmp_path):
    folder, _ = reported
    left = StateFolder(tmp_path / "one.state" / "site-1")
    shapes = {key: tensor + 5 for key, tensor in folder.tensors().items()}
    kinds = {"exp_avg": shapes, "exp_avg_sq": shapes, "step": dict.fromkeys(shapes, torch.tensor(9.0))}
    moments = {f"{kind}/{key}": value.clone() for kind, values in kinds.items() for key, value in values.items()}
    for round_ in (1, 2):
        left.keep(round_, OptimiserState(moments, shapes))
    again = train("one")
    assert (again.path / GLOBAL).read_bytes() == (folder.path / GLOBAL).read_bytes()


def test_the_codec_is_that_of_a_federation(train):
    """Centralized and federated training differ in who averages, so the wire's rounding is in both."""
    half, full = (train(codec, codec=codec, rounds=1).tensors() for codec in ("bfloat16", "float32"))
    assert all(not torch.equal(tensor, half[key]) for key, tensor in full.items())


def test_the_best_payload_is_that_of_the_best_validated_round(reported, run, checkpoint):
    folder, _ = reported
    with (folder.path / METRICS).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["rounds"], row["label"]) for row in rows] == [
        (str(n), label) for n in range(3) for label in ("organ", "lesion")
    ]
    means = [sum(float(row["dice"]) for row in rows[i : i + 2]) / 2 for i in (0, 2, 4)]
    best = folder.description["best"]
    assert best["rounds"] == means.index(max(means))
    assert best["validation_dice"] == pytest.approx(max(means), abs=1e-6)
    payloads = {0: trainable(build(run, checkpoint)), 2: folder.tensors()}
    if best["rounds"] in payloads:
        expected = payloads[best["rounds"]]
        assert all(torch.equal(tensor, expected[key]) for key, tensor in folder.tensors(BEST).items())


def test_the_same_run_twice_gives_the_same_bytes(reported, train):
    one, two = reported[0], train("two")
    for name in ("global.safetensors", "best.safetensors", "metrics.csv"):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes(), name
    assert (one.path / DESCRIPTION).read_bytes() == (two.path / DESCRIPTION).read_bytes()


def test_a_site_without_validation_cases_finishes_without_a_best_round(train, site):
    folder = train("one", site=replace(site, splits=site.splits | {"validation": ()}), rounds=1)
    assert folder.description["status"] == "finished"
    assert "best" not in folder.description
    assert not (folder.path / BEST).exists()


def test_a_run_that_failed_does_not_say_that_it_is_running(train, tmp_path):
    with pytest.raises(ValueError, match="loss"):
        train("one", learning_rate=1e30, warmup=0.0, rounds=5)
    status = RunFolder(tmp_path / "one").description["status"]
    assert status.startswith("failed: ") and "loss" in status

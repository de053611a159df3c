"""The main path through real FLARE: weights, bytes, metrics and logs; its exit code proves nothing."""

import hashlib
from math import prod

import pytest
import torch
from by_hand import by_hand
from wire import wire_bytes

from fedpeft.config.jobs import Job
from fedpeft.config.run import make_run
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.models.payload import payload, trainable

SITES = ["site-1", "site-2", "site-3"]
RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=2, image_size=48)


@pytest.fixture(scope="module")
def three_threads(federation, tmp_path_factory):
    return federation(tmp_path_factory.mktemp("three"), Job("test", RUN, min_sites=3), SITES, threads=3)


@pytest.fixture(scope="module")
def one_thread_bfloat16(federation, tmp_path_factory):
    """One client process at a time, made anew for every task: two sites, since each change costs seconds."""
    run = RUN.with_(codec="bfloat16")
    return federation(tmp_path_factory.mktemp("one"), Job("test", run, min_sites=2), SITES[:2], threads=1)


def test_the_run_finished_and_its_payload_is_the_declared_one(three_threads):
    _, folder = three_threads
    assert folder.description["status"] == "finished"
    assert folder.description["rounds_done"] == 2
    assert {key: tuple(value.shape) for key, value in folder.tensors().items()} == payload(RUN)
    assert all(tensor.isfinite().all() for tensor in folder.tensors().values())


def test_something_was_learnt_and_everything_that_travels_moved(three_threads):
    _, folder = three_threads
    initial = trainable(build(RUN, shipped(RUN.backbone)))
    still = [key for key, tensor in folder.tensors().items() if torch.equal(tensor, initial[key])]
    assert not still
    losses = [[item["loss"] for item in record["sites"].values()] for record in folder.rounds()]
    assert sum(losses[1]) < sum(losses[0])


def test_three_threads_give_the_weights_of_the_algebra_bit_for_bit(three_threads, small_phantom, tmp_path):
    _, folder = three_threads
    expected = by_hand(RUN, small_phantom, tmp_path, SITES)
    assert [key for key, tensor in folder.tensors().items() if not torch.equal(tensor, expected[key])] == []


def test_one_thread_and_bfloat16_give_the_weights_of_the_algebra_bit_for_bit(
    one_thread_bfloat16, small_phantom, tmp_path
):
    _, folder = one_thread_bfloat16
    expected = by_hand(RUN.with_(codec="bfloat16"), small_phantom, tmp_path, SITES[:2])
    assert [key for key, tensor in folder.tensors().items() if not torch.equal(tensor, expected[key])] == []


@pytest.mark.slow
def test_one_thread_and_three_give_the_same_file(three_threads, federation, tmp_path):
    """The same job twice, to the letter; slow, since one thread starts a new client process for every task."""
    _, three = three_threads
    _, one = federation(tmp_path, Job("test", RUN, min_sites=3), SITES, threads=1)
    assert (one.path / "global.safetensors").read_bytes() == (three.path / "global.safetensors").read_bytes()


@pytest.mark.parametrize(("fixture", "width", "sites"), [("three_threads", 4, 3), ("one_thread_bfloat16", 2, 2)])
def test_the_wire_carries_the_declared_bytes(fixture, width, sites, request):
    workspace, folder = request.getfixturevalue(fixture)
    declared = width * sum(map(prod, payload(RUN).values()))
    up, down = wire_bytes(workspace, "up"), wire_bytes(workspace, "down")
    # Two rounds up; two rounds and the last validation down.
    assert (len(up), len(down)) == (2 * sites, 3 * sites)
    tolerance = max(0.05 * declared, 16 * 1024)
    assert all(abs(size - declared) <= tolerance for size in up + down)
    records = [item for record in folder.rounds() for item in record["sites"].values()]
    assert {item["bytes_up"] for item in records} == {item["bytes_down"] for item in records} == {declared}


def test_metrics_are_means_and_name_no_patient(three_threads, small_phantom):
    workspace, folder = three_threads
    lines = (folder.path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "rounds,site,split,label,dice"
    assert len(lines) == 1 + 3 * 3 * 2  # rounds 0, 1, 2; three sites; two classes
    for file in folder.path.iterdir():
        if file.suffix != ".safetensors":
            assert "case-" not in file.read_text(), file
    assert "case-" not in (workspace / "server" / "log.txt").read_text()


def test_every_round_tells_what_averaging_lost(three_threads):
    _, folder = three_threads
    for record in folder.rounds():
        assert len(record["averaging"]) == 4 * 2 + 7 * 2
        for report in record["averaging"].values():
            assert 0 < report["energy_kept"] <= 1
            assert 0 <= report["truncation_error"] < 1
            # The truncated SVD is the best of its rank, so no other average of that rank is closer.
            assert report["truncation_error"] <= report["factor_mean_error"] + 1e-6


def test_the_site_weights_are_its_share_of_the_cases(three_threads):
    _, folder = three_threads
    assert [item["weight"] for item in folder.rounds()[0]["sites"].values()] == pytest.approx([1 / 3] * 3)


def test_a_person_can_read_every_round(three_threads):
    workspace, _ = three_threads
    lines = [line for line in (workspace / "server" / "log.txt").read_text().splitlines() if "fedpeft |" in line]
    assert len(lines) == 3
    assert all(word in lines[0] for word in ("round 1/2", "Dice", "site-1", "fit", "up", "down", " s"))
    assert "after 2 rounds" in lines[2]


def test_no_pickle_lies_in_the_workspace(three_threads):
    workspace, _ = three_threads
    assert not [file for file in workspace.rglob("*") if file.suffix in {".pt", ".pth", ".pkl", ".pickle"}]


def test_optimiser_state_stays_at_the_sites(three_threads):
    workspace, _ = three_threads
    state = workspace.parent / "state"
    assert {file.parent.name for file in state.rglob("*.safetensors")} == set(SITES)
    fingerprints = {hashlib.sha256(file.read_bytes()).hexdigest() for file in state.rglob("round-00001.safetensors")}
    assert len(fingerprints) == 3


@pytest.mark.slow
def test_a_federation_ends_early_when_the_sites_validation_has_stopped_to_improve(federation, tmp_path):
    """Three colours are told apart soon, and nothing is better than all."""
    run = make_run(
        "linear_probe",
        "images",
        "vit_tiny",
        classes=3,
        rounds=30,
        patience=2,
        image_size=32,
        batch=4,
        initial="random",
        learning_rate=2e-2,
    )
    workspace, folder = federation(tmp_path, Job("test", run, min_sites=2), SITES[:2], threads=2)
    found = folder.description
    assert found["status"] == "finished" and found["validated"] == SITES[:2]
    assert found["rounds_done"] == found["best"]["rounds"] + 3 < 30
    assert len(folder.rounds()) == found["rounds_done"]
    assert f"after {found['rounds_done']} rounds" in (workspace / "server" / "log.txt").read_text()

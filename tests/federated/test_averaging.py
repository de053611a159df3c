"""Every kind of averaging through the real simulator; products and means are those of test_simulator.py."""

import pytest
import torch
from by_hand import by_hand
from wire import wire_bytes

from fedpeft.config.jobs import Job
from fedpeft.config.methods import METHODS
from fedpeft.config.run import make_run
from fedpeft.flare.filters import declared_bytes
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.models.payload import download, payload, trainable, whole

SITES = ["site-1", "site-2"]
# One row for each rule that flap_sam does not have; the other rows run in `make check-all`.
ALWAYS = ("ma_sam", "ma_sam_tk")
SLOW = [name for name, row in METHODS.items() if "segmentation" in row.tasks and name not in (*ALWAYS, "flap_sam")]
# Of classification: a product of prompts, and rounds that draw blocks; both with a codec that rounds.
PICTURES = ("dvpt", "sba")
CODEC = {"dvpt": "int8"}
SLOW_PICTURES = [name for name, row in METHODS.items() if "classification" in row.tasks and name not in PICTURES]


@pytest.mark.parametrize("method", [*ALWAYS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_rows_round_gives_the_weights_of_the_algebra_bit_for_bit(method, federation, small_phantom, tmp_path):
    run = make_run(method, "phantom", "sam_tiny", classes=2, rounds=1, image_size=48)
    workspace, folder = federation(tmp_path, Job("test", run, min_sites=2), SITES, threads=2)
    assert folder.description["status"] == "finished"
    found, expected = folder.tensors(), by_hand(run, small_phantom, tmp_path / "hand", SITES)
    assert {key: tuple(value.shape) for key, value in found.items()} == payload(run)
    assert [key for key, value in found.items() if not torch.equal(value, expected[key])] == []
    initial = trainable(build(run, shipped(run.backbone)))
    still = [key for key, value in found.items() if torch.equal(value, initial[key])]
    unused = ("mask_decoder.iou_prediction_head.", "prompt_encoder.")
    assert all(key.startswith(unused) for key in still)
    for group, report in folder.rounds()[0]["averaging"].items():
        assert 0 <= report["truncation_error"] < 1, group
        assert report["truncation_error"] <= report["factor_mean_error"] + 1e-6, group


@pytest.mark.parametrize("method", [*PICTURES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_PICTURES)])
def test_pictures_go_the_same_way_bit_for_bit_and_send_what_the_rounds_declare(
    method, federation, small_pictures, tmp_path
):
    fields = {"classes": 3, "side": 32, "initial": "random", "blocks": 2}
    run = make_run(method, "images", "vit_tiny", rounds=3, batch=4, codec=CODEC.get(method, "bfloat16"), **fields)
    workspace, folder = federation(tmp_path, Job("test", run, min_sites=2), SITES, threads=2)
    assert folder.description["status"] == "finished"
    found, expected = folder.tensors(), by_hand(run, small_pictures, tmp_path / "hand", SITES)
    assert {key: tuple(value.shape) for key, value in found.items()} == whole(run)
    assert [key for key, value in found.items() if not torch.equal(value, expected[key])] == []
    up = [declared_bytes(payload(run, round_), run.federation.codec) for round_ in range(3)]
    down = [declared_bytes(download(run, round_), run.federation.codec) for round_ in range(4)]
    records = folder.rounds()
    assert [{item["bytes_up"] for item in record["sites"].values()} for record in records] == [{size} for size in up]
    assert sorted(wire_bytes(workspace, "up")) == pytest.approx(sorted(2 * up), rel=0.05, abs=16 * 1024)
    assert sorted(wire_bytes(workspace, "down")) == pytest.approx(sorted(2 * down), rel=0.05, abs=16 * 1024)


def test_every_rule_of_the_rows_is_run_here_or_with_flap_sam():
    def rules(name):
        return {rule for _, rule in METHODS[name].rules}

    assert set().union(*map(rules, METHODS)) == set().union(*map(rules, (*ALWAYS, "flap_sam")))

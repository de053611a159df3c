import json

import pytest
from fedpeft.config.seeds import seed_of

from fedpeft.config.run import Run, make_run
from fedpeft.training.engine.optimiser import learning_rate_at


def test_defaults_come_from_the_rows():
    run = make_run("flap_sam", "phantom", "sam_vit_b")
    assert (run.option("rank"), run.model.image_size, run.training.learning_rate) == (32, 224, 8e-4)
    assert make_run("full_ft", "phantom", "sam_vit_b").learning_rate == pytest.approx(8e-4 * 0.15)


def test_json_round_trip():
    run = make_run("pdec_ft", "folder", "sam_tiny", classes=3, seed=7, codec="bfloat16")
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_another_method_brings_its_own_step_size():
    assert make_run("flap_sam", "phantom").with_(method="dec_ft").learning_rate == pytest.approx(4e-4)
    assert make_run("flap_sam", "phantom", learning_rate=0.01).with_(method="dec_ft").learning_rate == pytest.approx(
        5e-3
    )
    assert make_run("flap_sam", "phantom", learning_rate=0.01).with_(method="flap_sam", seed=3).learning_rate == 0.01
    tiny = make_run("flap_sam", "phantom", "sam_vit_b", learning_rate=0.01).with_(backbone="sam_tiny")
    assert (tiny.rank, tiny.side, tiny.learning_rate) == (8, 96, 2e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", 0),
        ("side", 100),
        ("stride", 6),
        ("weights", "mine"),
        ("codec", "int3"),
        ("classes", 0),
        ("dice_weight", 1.5),
        ("warmup", 1.0),
        ("learning_rate", -1.0),
    ],
)
def test_out_of_range_values_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is"):
        make_run("flap_sam", "phantom", **{field: value})


@pytest.mark.parametrize("change", [{"method": "magic"}, {"backbone": "sam_vit_z"}])
def test_unknown_rows_list_the_known(change):
    with pytest.raises(ValueError, match="known: "):
        make_run(**{"method": "flap_sam", "dataset": "phantom"} | change)


@pytest.mark.parametrize(("field", "value"), [("path", "/tmp/x"), ("rounds", "10"), ("rounds", True), ("rank", 1.5)])
def test_a_job_cannot_smuggle_fields_or_types(field, value):
    with pytest.raises(ValueError, match=field):
        Run.from_dict({"method": "flap_sam", "dataset": "phantom", field: value})


def test_seeds_differ_by_every_part_and_are_stable():
    seeds = {seed_of(0, "site-1", 0), seed_of(1, "site-1", 0), seed_of(0, "site-2", 0), seed_of(0, "site-1", 1)}
    assert len(seeds) == 4
    assert seed_of(0, "site-1", 0) == 2635062178199976256
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_another_method_brings_its_own_rank_and_side_unless_they_were_chosen():
    run = make_run("flap_sam", "folder", "sam_vit_b")
    assert (run.option("rank"), run.model.image_size) == (32, 224)
    samed = run.with_(method="samed")
    assert (samed.rank, samed.side, samed.upscaling) == (4, 512, (64, 32))
    assert samed.with_(method="flap_sam") == run
    chosen = run.with_(rank=16, image_size=256).with_(method="samed")
    assert (chosen.rank, chosen.side) == (16, 256)


@pytest.mark.parametrize(
    ("decay", "progress", "share"),
    [
        ("cosine", 0.05, 1.0),
        ("cosine", 0.525, 0.5),
        ("cosine", 1.0, 0.0),
        ("power7", 0.05, 1.0),
        ("power7", 0.525, 0.5**7),
        ("power7", 1.0, 0.0),
    ],
)
def test_the_step_size_decays_over_the_run(decay, progress, share):
    run = make_run("flap_sam", "folder", "sam_tiny", lr_schedule=decay, warmup=0.05)
    assert learning_rate_at(run, progress) == pytest.approx(share * run.training.learning_rate, abs=1e-12)
    assert learning_rate_at(run, 0.025) == pytest.approx(run.training.learning_rate / 2)

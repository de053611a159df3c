import json

import pytest

from fedpeft.spec.run import Run, seed_of


def test_defaults_come_from_the_rows():
    run = Run("flap_sam", "phantom", "sam_vit_b")
    assert (run.rank, run.side, run.learning_rate) == (32, 224, 8e-4)
    assert Run("full_ft", "phantom", "sam_vit_b").learning_rate == pytest.approx(8e-4 * 0.15)


def test_json_round_trip():
    run = Run("pdec_ft", "folder", "sam_tiny", classes=3, seed=7, codec="bfloat16")
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_another_method_brings_its_own_step_size():
    assert Run("flap_sam", "phantom").with_(method="dec_ft").learning_rate == pytest.approx(4e-4)
    assert Run("flap_sam", "phantom", learning_rate=0.01).with_(method="dec_ft").learning_rate == pytest.approx(5e-3)
    assert Run("flap_sam", "phantom", learning_rate=0.01).with_(method="flap_sam", seed=3).learning_rate == 0.01
    tiny = Run("flap_sam", "phantom", "sam_vit_b", learning_rate=0.01).with_(backbone="sam_tiny")
    assert (tiny.rank, tiny.side, tiny.learning_rate) == (8, 96, 2e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rounds", 0), ("side", 100), ("stride", 6), ("weights", "mine"), ("codec", "int3"), ("classes", 0),
     ("dice_weight", 1.5), ("warmup", 1.0), ("learning_rate", -1.0)],
)
def test_out_of_range_values_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is"):
        Run("flap_sam", "phantom", **{field: value})


@pytest.mark.parametrize("change", [{"method": "magic"}, {"backbone": "sam_vit_z"}])
def test_unknown_rows_list_the_known(change):
    with pytest.raises(ValueError, match="known: "):
        Run(**{"method": "flap_sam", "dataset": "phantom"} | change)


@pytest.mark.parametrize(("field", "value"), [("path", "/tmp/x"), ("rounds", "10"), ("rounds", True), ("rank", 1.5)])
def test_a_job_cannot_smuggle_fields_or_types(field, value):
    with pytest.raises(ValueError, match=field):
        Run.from_dict({"method": "flap_sam", "dataset": "phantom", field: value})


def test_seeds_differ_by_every_part_and_are_stable():
    seeds = {seed_of(0, "site-1", 0), seed_of(1, "site-1", 0), seed_of(0, "site-2", 0), seed_of(0, "site-1", 1)}
    assert len(seeds) == 4
    assert seed_of(0, "site-1", 0) == 2635062178199976256
    assert all(0 <= seed < 2**63 for seed in seeds)

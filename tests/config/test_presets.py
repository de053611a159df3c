"""Presets are rows that fit the methods, the settings and a run."""

from dataclasses import fields

import pytest

from fedpeft.config.methods import METHODS
from fedpeft.config.presets import ABLATIONS, TRAININGS
from fedpeft.config.run import SETTINGS, Run, make_run


@pytest.mark.parametrize("row", ABLATIONS.values(), ids=ABLATIONS)
def test_ablations_name_rows_and_settings(row):
    assert set(row.methods) <= METHODS.keys()
    assert set(row.settings) <= set(SETTINGS)
    assert row.note


@pytest.mark.parametrize("row", TRAININGS.values(), ids=TRAININGS)
def test_trainings_are_fields_of_a_run(row):
    assert row.fields().keys() <= {field.name for field in fields(Run)}
    assert make_run("flap_sam", "phantom", **row.fields()).stride == row.stride
    assert row.note


def test_the_papers_ablations():
    """Tables 2, D and E."""
    assert (ABLATIONS["rank"].methods, ABLATIONS["rank"].ranks) == (("flap_sam",), (4, 16, 32))
    assert (ABLATIONS["adapter"].methods, ABLATIONS["adapter"].ranks) == (("flap_sam", "dora", "mole"), ())
    assert {row.settings for row in ABLATIONS.values()} == {("federated",)}


def test_the_papers_training():
    row = TRAININGS["paper"]
    assert (row.learning_rate, row.one_rate) == (8e-4, True)
    assert row.fields() == {
        "rounds": 100,
        "local_epochs": 1.0,
        "batch": 32,
        "stride": 1,
        "negatives": 100.0,
        "weights": "uniform",
        "codec": "float32",
        "decay": "power7",
    }


def test_the_efficient_training():
    row = TRAININGS["efficient"]
    run = make_run("flap_sam", "phantom", **row.fields(), learning_rate=row.learning_rate)
    assert (row.one_rate, run.training.learning_rate) == (False, run.backbone.learning_rate)
    assert (
        run.federation.rounds,
        run.training.local_epochs,
        run.training.batch,
        run.data.stride,
        run.federation.site_weighting,
        run.federation.codec,
        run.training.lr_schedule,
    ) == (
        20,
        0.5,
        2,
        run.data.stack,
        "cases",
        "bfloat16",
        "cosine",
    )

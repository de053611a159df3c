"""Presets fit the methods, the settings and a run."""

import pytest

from fedpeft.config.methods import METHODS
from fedpeft.config.presets import ABLATIONS, RECIPES
from fedpeft.config.run import SETTINGS, make_run


@pytest.mark.parametrize("entry", ABLATIONS.values(), ids=ABLATIONS)
def test_ablations_name_methods_and_settings(entry):
    assert set(entry.methods) <= METHODS.keys()
    assert set(entry.settings) <= set(SETTINGS)
    assert entry.note


@pytest.mark.parametrize("entry", RECIPES.values(), ids=RECIPES)
def test_recipes_are_fields_of_a_run(entry):
    assert make_run("flap_sam", "phantom", **entry.fields).data.stride == entry.fields["stride"]
    assert entry.note


def test_the_papers_ablations():
    """Tables 2, D and E."""
    assert (ABLATIONS["rank"].methods, ABLATIONS["rank"].ranks) == (("flap_sam",), (4, 16, 32))
    assert (ABLATIONS["adapter"].methods, ABLATIONS["adapter"].ranks) == (("flap_sam", "dora", "mole"), ())
    assert {entry.settings for entry in ABLATIONS.values()} == {("federated",)}


def test_the_papers_recipe():
    assert RECIPES["paper"].fields == {
        "rounds": 100,
        "local_epochs": 1.0,
        "batch": 32,
        "stride": 1,
        "background_ratio": 100.0,
        "site_weighting": "uniform",
        "codec": "float32",
        "lr_schedule": "power7",
        "learning_rate": 8e-4,
    }
    run = make_run("full_ft", "phantom", **RECIPES["paper"].fields)
    assert run.training.learning_rate == 8e-4


def test_the_efficient_recipe():
    run = make_run("flap_sam", "phantom", learning_rate=1.0).with_(**RECIPES["efficient"].fields)
    assert run.training.learning_rate == run.backbone.learning_rate
    assert (run.federation.rounds, run.federation.site_weighting, run.federation.codec) == (20, "cases", "bfloat16")
    assert (run.training.local_epochs, run.training.batch, run.training.lr_schedule) == (0.5, 2, "cosine")
    assert run.data.stride == run.data.stack

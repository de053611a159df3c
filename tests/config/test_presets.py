"""Presets fit the methods, the settings and a run."""

import pytest

from fedpeft.config.methods import METHODS
from fedpeft.config.presets import ABLATIONS, RECIPES
from fedpeft.config.run import SETTINGS, make_run
from fedpeft.config.sections import SECTION_OF


@pytest.mark.parametrize("entry", ABLATIONS.values(), ids=ABLATIONS)
def test_ablations_name_methods_and_settings(entry):
    assert set(entry.methods) <= METHODS.keys()
    assert set(entry.settings) <= set(SETTINGS)
    assert entry.note


@pytest.mark.parametrize("entry", RECIPES.values(), ids=RECIPES)
def test_recipes_are_fields_of_a_run(entry):
    run = make_run("flap_sam", "kits19", **entry.fields)
    assert run.data.stride == entry.fields["stride"] and run.federation.rounds == entry.fields["rounds"]
    assert entry.note


def test_every_recipe_names_the_same_fields():
    """So that nothing of one recipe stays behind where another takes its place."""
    names = {name: set(entry.fields) for name, entry in RECIPES.items()}
    assert all(fields == names["paper"] for fields in names.values())
    # Fields that are not a matter of a recipe: what is compared, the data themselves, and the machine.
    others = {"method", "backbone", "initial", "options", "dataset", "classes", "labels", "seed", "loss", "precision"}
    # Every recipe averages; the server's step is a strategy, which a job names beside its recipe.
    others |= {name for name in SECTION_OF if name.startswith("server_")}
    assert names["paper"] | others | {"patience"} == SECTION_OF.keys()


def test_one_recipe_after_another_is_the_last_one():
    start = make_run("flap_sam", "kits19").config
    for entry in RECIPES.values():
        for before in RECIPES.values():
            assert start.with_(**before.fields).with_(**entry.fields).resolve() == start.with_(**entry.fields).resolve()


def test_variants_are_other_methods_with_the_same_uses():
    found = {(name, entry) for recipe in RECIPES.values() for name, entry in recipe.variants.items()}
    assert ("flap_sam", "flap_sam_random_b") in found
    for name, entry in found:
        assert name != entry and "segmentation" in METHODS[entry].tasks
        assert METHODS[entry].rate == METHODS[name].rate
    assert all(set(recipe.methods) <= METHODS.keys() for recipe in RECIPES.values())


def test_the_papers_ablations():
    """Tables 2, D and E."""
    assert (ABLATIONS["rank"].methods, ABLATIONS["rank"].ranks) == (("flap_sam",), (4, 16, 32))
    assert (ABLATIONS["adapter"].methods, ABLATIONS["adapter"].ranks) == (("flap_sam", "dora", "mole"), ())
    assert {entry.settings for entry in ABLATIONS.values()} == {("federated",)}


# The code of the FLAP-SAM paper's authors, MA-SAM's and SAMed's: field -> value where they agree.
CODE = {
    "local_epochs": 1.0,
    "batch": 24,
    "stride": 1,
    "codec": "float32",
    "warmup_steps": 250,
    "weight_decay": 0.1,
    "weight_decay_on": "all",
    "dice_weight": 0.8,
}
FLAP_SAM = {"rounds": 100, "decay_epochs": 200.0, "learning_rate": 8e-4, "lr_schedule": "power7", "stack": 5}
SAMED = {"learning_rate": 5e-3, "stack": 1, "image_size": 512, "loss_size": "decoder"}
PUBLISHED = {
    "authors": CODE | FLAP_SAM | {"site_weighting": "published", "loss_size": "input"},
    # The text: batch, equal weights (equation 2) and Adam, which has no weight decay; the rest is the code's.
    "paper": CODE
    | FLAP_SAM
    | {"batch": 32, "site_weighting": "uniform", "weight_decay": 0.0, "weight_decay_on": "matrices"},
    "ma_sam": CODE | FLAP_SAM | {"rounds": 300, "decay_epochs": 400.0, "image_size": 512, "loss_size": "input"},
    "samed": CODE | SAMED | {"rounds": 160, "decay_epochs": 200.0, "lr_schedule": "poly"},
    "samed_h": CODE | SAMED | {"rounds": 300, "decay_epochs": 400.0, "lr_schedule": "power7"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_has_the_values_of_its_code(name):
    fields = RECIPES[name].fields
    assert {key: fields[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    assert make_run("full_ft", "kits19", **fields).training.learning_rate == fields["learning_rate"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper", ("paper", "repeat", "ma_sam")),
        ("authors", ("authors", "repeat", "ma_sam")),
        ("ma_sam", ("ma_sam", "repeat", "ma_sam")),
        ("samed", ("samed", "inside", "samed")),
        ("samed_h", ("samed", "inside", "samed")),
        ("efficient", ("standard", "inside", "standard")),
    ],
)
def test_a_recipe_prepares_data_as_its_source(name, expected):
    fields = RECIPES[name].fields
    assert tuple(fields[key] for key in ("preprocessing", "stack_ends", "augmentation")) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_trains_every_stack(name):
    assert make_run("flap_sam", "kits19", **RECIPES[name].fields).data.background_ratio > 1e5


def test_the_methods_that_the_authors_ran_in_other_forms():
    assert RECIPES["authors"].variants == {
        "flap_sam": "flap_sam_random_b",
        "lora_ft": "lora_ft_random_b",
        "lora_dec_ft": "lora_dec_ft_random_b",
        "attn_ft": "attn_ft_head",
        "dora": "dora_frozen",
    }
    assert not RECIPES["paper"].variants
    samed = RECIPES["samed"]
    assert (samed.methods, samed.backbone, RECIPES["ma_sam"].methods) == (("samed",), "sam_vit_b", ("ma_sam",))
    assert RECIPES["ma_sam"].backbone == RECIPES["samed_h"].backbone == "sam_vit_h"
    assert make_run("samed", "kits19", samed.backbone, **samed.fields).option("rank") == 4


def test_the_efficient_recipe():
    run = make_run("flap_sam", "phantom", learning_rate=1.0).with_(**RECIPES["efficient"].fields)
    assert run.training.learning_rate == run.backbone.learning_rate
    assert (run.federation.rounds, run.federation.site_weighting, run.federation.codec) == (20, "cases", "bfloat16")
    assert (run.training.local_epochs, run.training.batch, run.training.lr_schedule) == (0.5, 2, "cosine")
    assert run.data.stride == run.data.stack

"""Which runs are compared."""

import json

import pytest

from fedpeft.config.datasets import DATASETS, Dataset, register_datasets
from fedpeft.config.jobs import JOBS
from fedpeft.config.methods import METHODS
from fedpeft.config.presets import RECIPES
from fedpeft.config.run import RunConfig, make_run
from fedpeft.study.plan.experiments import Experiment, experiments_of, label
from fedpeft.study.plan.recipe import recipe, trained_by, variations

START = RunConfig.of(
    method="flap_sam", dataset="phantom", backbone="sam_tiny", classes=2, rounds=10, base_learning_rate=5e-3
)


def test_the_recipe_is_the_data_sets_with_its_classes(small_phantom, tmp_path):
    assert (recipe(small_phantom).data.dataset, recipe(small_phantom).data.classes) == ("phantom", 2)
    site = tmp_path / "north"
    site.mkdir()
    labels = {"0": "background", "1": "a", "2": "b", "3": "c"}
    (site / "datalist.json").write_text(json.dumps({"name": "scans", "labels": labels}))
    assert (recipe(tmp_path).data.dataset, recipe(tmp_path).data.classes) == ("folder", 3)


def renamed(data, out, dataset, names):
    """A folder of sites of another data set and with other names."""
    for site, name in zip(sorted(data.glob("site-*")), names, strict=True):
        (out / name).mkdir()
        content = json.loads((site / "datalist.json").read_text()) | {"name": dataset}
        (out / name / "datalist.json").write_text(json.dumps(content))
    return out


@pytest.mark.parametrize(
    ("names", "weighting", "lacking"),
    [
        (["site-A", "site-C", "site-F"], "published", None),
        (["site-A", "north", "site-F"], "slices", "no weight is published for north"),
    ],
)
def test_published_weights_are_used_where_every_site_has_one(small_phantom, tmp_path, names, weighting, lacking):
    data = renamed(small_phantom, tmp_path, "kits19", names)
    found = trained_by(RECIPES["authors"], data, ["mole"])
    assert found.fields["site_weighting"] == weighting and found.methods == {"mole": "mole"}
    assert [note.split(":")[0] for note in found.notes] == ([lacking] if lacking else [])
    (run,) = variations(recipe(data), ["mole"], [0], [], found.fields, {})
    assert (run.site_weights is None) == (weighting == "slices")


def test_without_a_training_recipe_nothing_is_set(small_phantom):
    found = trained_by(None, small_phantom, ["flap_sam"])
    assert (found.fields, found.methods, found.notes) == ({}, {"flap_sam": "flap_sam"}, [])


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dataset", ["phantom", "kits19", "images"])
def test_every_training_recipe_fits_any_data(name, dataset, small_phantom, small_images, tmp_path):
    data = small_images if dataset == "images" else small_phantom
    if dataset == "kits19":
        data = renamed(small_phantom, tmp_path, dataset, ["site-A", "site-C", "site-F"])
    methods = ["full_ft"] if dataset == "images" else ["flap_sam", "dora", "samed"]
    found = trained_by(RECIPES[name], data, methods)
    fields = found.fields | {"backbone": "vit_b16" if dataset == "images" else "sam_vit_b"}
    runs = variations(recipe(data), [*found.methods.values()], [0], [], fields, {})
    assert [run.model.method for run in runs] == [RECIPES[name].variants.get(method, method) for method in methods]
    assert {run.training.warmup_steps for run in runs} == {RECIPES[name].fields["warmup_steps"]}


def test_a_run_for_each_method_rank_and_seed():
    runs = variations(START, ["flap_sam", "pdec_ft"], [0, 7], [4, 8], {}, {})
    assert [(label(run), run.option("rank"), run.training.seed) for run in runs] == [
        ("flap_sam-r4", 4, 0),
        ("flap_sam-r4", 4, 7),
        ("flap_sam", 8, 0),
        ("flap_sam", 8, 7),
        # No adapters, no rank.
        ("pdec_ft", None, 0),
        ("pdec_ft", None, 7),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_row_of_the_methods_table_can_be_compared_by_its_name(method):
    row = METHODS[method]
    images = RunConfig.of(dataset="images", backbone="vit_tiny", classes=3, base_learning_rate=5e-3)
    start = START if "segmentation" in row.tasks else images
    (run,) = variations(start, [method], [0], [], {}, {})
    assert label(run) == method
    assert dict(run.model.options).keys() == {name for name in row.options if name != "alpha"}
    assert run.training.learning_rate == pytest.approx(5e-3 * row.rate)


@pytest.mark.parametrize(
    ("method", "backbone", "rank", "expected"),
    [
        ("flap_sam", "sam_vit_b", 32, "flap_sam"),
        ("flap_sam", "sam_vit_b", 8, "flap_sam-r8"),
        ("flap_sam", "sam_tiny", 8, "flap_sam"),
        ("samed", "sam_vit_b", 4, "samed"),
        ("samed", "sam_vit_b", 32, "samed-r32"),
    ],
)
def test_the_label_names_a_rank_that_is_not_the_methods_own(method, backbone, rank, expected, tmp_path):
    run = make_run(method, "phantom", backbone, rank=rank, seed=3)
    assert label(run) == expected
    assert Experiment(run, "local", "north").folder(tmp_path) == tmp_path / expected / "seed-3" / "local" / "north"
    assert Experiment(run, "local", "north").name == f"{expected}, seed 3, local north"


def test_fields_go_before_what_a_method_brings():
    fields = {"backbone": "sam_vit_b", "image_size": 224, "rounds": 3}
    plain, samed = variations(START, ["flap_sam", "samed"], [0], [], fields, {})
    assert (plain.model.image_size, samed.model.image_size, samed.federation.rounds) == (224, 224, 3)
    (own,) = variations(START, ["samed"], [0], [], {"backbone": "sam_vit_b"}, {})
    assert (own.model.image_size, own.option("rank")) == (512, 4)


def test_learning_rates_scale_by_the_method_or_are_the_same_for_all():
    methods = ["flap_sam", "full_ft", "dec_ft"]

    def rates(fields, own):
        return [run.training.learning_rate for run in variations(START, methods, [0], [], fields, own)]

    assert rates({}, {}) == pytest.approx([5e-3, 7.5e-4, 2.5e-3])
    assert rates({"base_learning_rate": 1e-2}, {}) == pytest.approx([1e-2, 1.5e-3, 5e-3])
    assert rates({"learning_rate": 8e-4}, {}) == [8e-4, 8e-4, 8e-4]
    # The backbone's, 2e-3.
    assert rates({"base_learning_rate": None}, {}) == pytest.approx([2e-3, 3e-4, 1e-3])
    assert rates({}, {"full_ft": 1e-5}) == pytest.approx([5e-3, 1e-5, 2.5e-3])


def test_an_option_that_no_method_has_is_refused():
    with pytest.raises(ValueError, match="prompts is 5, but flap_sam, full_ft has no such option"):
        variations(START, ["flap_sam", "full_ft"], [0], [], {"prompts": 5}, {})


def test_ranks_that_no_method_has_are_refused():
    with pytest.raises(ValueError, match=r"rank is \[4, 8\], but full_ft has no such option"):
        variations(START, ["full_ft"], [0], [4, 8], {}, {})


def test_a_base_learning_rate_that_changes_nothing_is_refused():
    paper = RunConfig.of(method="flap_sam", dataset="kits19", classes=2, learning_rate=8e-4)
    with pytest.raises(ValueError, match=r"base_learning_rate is 0.001, but the learning rate is 0.0008"):
        variations(paper, ["flap_sam"], [0], [], {"base_learning_rate": 1e-3}, {})
    (run,) = variations(paper, ["flap_sam"], [0], [], {"base_learning_rate": 1e-3, "learning_rate": None}, {})
    assert run.training.learning_rate == 1e-3


def test_a_comparison_of_nothing_or_in_no_setting_is_refused():
    with pytest.raises(ValueError, match="at least one method and one seed"):
        variations(START, ["flap_sam"], [], [], {}, {})
    with pytest.raises(ValueError, match="unknown setting 'locale'"):
        experiments_of([START.resolve()], ["locale"], [])


@pytest.mark.parametrize("fields", [{"method": "dora"}, {"seed": 1}])
def test_what_is_compared_is_no_field_of_all_runs(fields):
    with pytest.raises(ValueError, match="methods and seeds"):
        variations(START, ["flap_sam"], [0], [], fields, {})


def test_the_same_run_asked_for_twice_is_one():
    assert len(variations(START, ["flap_sam", "flap_sam"], [0, 0], [8, 8], {}, {})) == 1


def test_a_data_set_without_a_job_has_the_recipe_of_plain_data_and_its_own_name(tmp_path, monkeypatch):
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS))
    register_datasets(Dataset("liver", "Livers", ((0, "background"), (1, "liver"))))
    site = tmp_path / "north"
    site.mkdir()
    (site / "datalist.json").write_text(json.dumps({"name": "liver", "labels": {"0": "background", "1": "liver"}}))
    found = recipe(tmp_path)
    assert found == JOBS["flap_sam_folder"].run.with_(dataset="liver", classes=1, labels=("liver",))
    # The order of the jobs does not matter.
    monkeypatch.setattr(JOBS, "_entries", dict(reversed(list(JOBS.items()))))
    assert recipe(tmp_path) == found

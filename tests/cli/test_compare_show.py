"""``fedpeft compare --show``: every field of what would be trained, and where its value comes from."""

import json

import pytest

from fedpeft.cli import compare as cli
from fedpeft.cli.comparison import show
from fedpeft.config.jobs import JOBS
from fedpeft.config.presets import RECIPES, Recipe
from fedpeft.config.run import Run
from fedpeft.config.sections import SECTION_OF
from fedpeft.study.plan.recipe import recipe, variations


@pytest.fixture
def shown(fedpeft):
    """A function of options that gives, of each run, field -> (value, where it comes from)."""

    def call(*options):
        code, out, err = fedpeft("compare", "--show", "--json", *options)
        assert code == 0 and all(line.startswith("note: ") for line in err.splitlines())
        runs = json.loads(out)["runs"]
        return [{item["field"]: (item["value"], item["from"]) for item in run["fields"]} for run in runs]

    return call


def test_every_field_of_every_run_is_there_as_it_would_be_trained(shown, small_phantom):
    found = shown("--data", small_phantom, "--methods", "flap_sam,dec_ft", "--seed", "0,3", "--rounds", "3")
    runs = variations(recipe(small_phantom), ["flap_sam", "dec_ft"], [0, 3], (), {"rounds": 3}, {})
    assert len(found) == len(runs) == 4
    for fields, run in zip(found, runs, strict=True):
        plain = run.to_dict()
        expected = {name: plain[section][name] for name, section in SECTION_OF.items() if name != "options"}
        expected |= dict.fromkeys(run.method.options) | plain["model"]["options"] | run.preprocessing.to_dict()
        assert {name: value for name, (value, _) in fields.items()} == expected
        assert all(origin for _, origin in fields.values())


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ([], "rounds", (10, "job flap_sam_phantom")),
        ([], "classes", (2, "data")),
        ([], "stack", (5, "default")),
        ([], "seed", (0, "default")),
        ([], "image_size", (96, "backbone")),
        ([], "rank", (8, "backbone")),
        ([], "dropout", (0.0, "method")),
        ([], "alpha", (None, "method")),
        ([], "learning_rate", (5e-3, "base_learning_rate")),
        ([], "scale", ("zscore", "standard of phantom")),
        (["--methods", "dec_ft"], "learning_rate", (2.5e-3, "method: 0.5 x base_learning_rate")),
        (["--methods", "dec_ft"], "method", ("dec_ft", "option")),
        (["--methods", "samed"], "rank", (4, "method")),
        (["--training", "paper"], "rounds", (100, "recipe paper")),
        (["--training", "paper"], "base_learning_rate", (2e-3, "backbone")),
        (["--training", "paper", "--methods", "flap_sam"], "method", ("flap_sam", "option")),
        (["--training", "authors", "--methods", "flap_sam"], "method", ("flap_sam_random_b", "recipe authors")),
        (["--training", "authors", "--methods", "dec_ft"], "method", ("dec_ft", "option")),
        (["--training", "authors"], "site_weighting", ("slices", "recipe authors")),
        (["--training", "authors"], "fit", ("stretch", "authors of phantom")),
        (["--training", "samed"], "backbone", ("sam_vit_b", "recipe samed")),
        (["--training", "paper"], "seed", (0, "default")),
        (["--training", "paper", "--rounds", "3"], "rounds", (3, "option")),
        (["--training", "paper", "--learning-rate", "1e-3"], "learning_rate", (1e-3, "option")),
        (["--training", "efficient"], "base_learning_rate", (2e-3, "backbone")),
        (["--training", "efficient", "--learning-rate", "1e-2"], "base_learning_rate", (1e-2, "option")),
        (["--learning-rate", "flap_sam=1e-3"], "learning_rate", (1e-3, "option")),
        (["--ranks", "4"], "rank", (4, "option")),
        (["--ablation", "rank"], "rank", (4, "ablation rank")),
        (["--ablation", "adapter"], "method", ("flap_sam", "ablation adapter")),
        (["--backbone", "sam_vit_h"], "backbone", ("sam_vit_h", "option")),
        (["--backbone", "sam_vit_h", "--methods", "samed"], "image_size", (512, "method")),
        (["--seed", "0"], "seed", (0, "option")),
    ],
)
def test_where_a_value_comes_from(shown, small_phantom, options, field, expected):
    assert shown("--data", small_phantom, *options)[0][field] == expected


def test_without_data_it_starts_from_the_job_of_the_tasks_plain_data_set(shown):
    (found,) = shown()
    assert found["dataset"] == ("folder", "job flap_sam_folder")
    (found,) = shown("--methods", "lora")
    assert found["dataset"] == ("images", "job lora_images")
    assert found["batch"] == (JOBS["lora_images"].run.training.batch, "job lora_images")
    assert "percentiles" not in found


def test_a_value_that_a_recipe_has_for_some_methods_alone_is_the_recipes(shown, monkeypatch):
    """Recipes may vary their fields; whatever no other layer explains is theirs."""
    monkeypatch.setattr(cli, "variations", lambda start, *rest: [start.with_(rounds=77).resolve()])
    (found,) = shown("--training", "paper")
    assert found["rounds"] == (77, "recipe paper")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_shown_completely(shown, name):
    (found,) = shown("--training", name)
    entry = RECIPES[name]
    assert isinstance(entry, Recipe) and entry.fields
    for field, value in entry.fields.items():
        # Without data, no site has a published weight.
        expected = "slices" if value == "published" else value
        if expected is not None:
            assert found[field] == (expected, f"recipe {name}")
    assert sum(origin == f"recipe {name}" for _, origin in found.values()) >= 7


def test_the_table_has_one_line_for_what_all_runs_share(fedpeft, small_phantom):
    options = ["--methods", "flap_sam,dec_ft", "--ranks", "4,8", "--seed", "0,1", "--settings", "local"]
    code, out, _ = fedpeft("compare", "--show", "--data", small_phantom, *options)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert code == 0 and out.endswith("6 runs in local; nothing was trained\n")
    by_field = {field: [line[2:] for line in lines if line[1] == field] for field in {line[1] for line in lines}}
    assert by_field["rounds"] == [["10", "job flap_sam_phantom", ""]]
    assert by_field["method"] == [["flap_sam", "option", "flap_sam-r4, flap_sam"], ["dec_ft", "option", "dec_ft"]]
    assert by_field["rank"] == [["4", "option", "flap_sam-r4"], ["8", "option", "flap_sam"]]
    assert by_field["seed"] == [["0", "option", "seed 0"], ["1", "option", "seed 1"]]
    parts = [line[0] for line in lines]
    assert list(dict.fromkeys(parts)) == ["model", "data", "training", "federation", "preprocessing"]
    assert parts == sorted(parts, key=list(dict.fromkeys(parts)).index)
    (one,) = [line for line in fedpeft("compare", "--show")[1].splitlines() if " stack " in line]
    assert one.count("│") == 5, "a single run needs no column of runs"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--methods", "flap_sam"], {"loss"}),
        (["--methods", "flap_sam", "--warmup-steps", "5", "--learning-rate", "flap_sam=1e-3"],
         {"loss", "warmup", "base_learning_rate"}),
        (["--methods", "flap_sam", "--site-weights", "a=1"], {"loss", "site_weighting"}),
        (["--methods", "lora"], {"stack", "stride", "background_ratio", "stack_ends", "preprocessing", "augmentation",
                                 "dice_weight", "loss_size"}),
    ],
)  # fmt: skip
def test_fields_without_effect_are_marked(fedpeft, options, expected):
    found = json.loads(fedpeft("compare", "--show", "--json", *options)[1])["runs"][0]["fields"]
    assert {item["field"] for item in found if item.get("no_effect")} == expected
    lines = [line for line in fedpeft("compare", "--show", *options)[1].splitlines() if "no effect" in line]
    assert {line.split("│")[2].strip() for line in lines} == expected


def test_windows_are_words(shown):
    windows = [{"low": -66.0, "high": 208.5, "mean": 0.0, "std": 1.0, "site": "site-A"},
               {"low": -79.0, "high": 304.0, "mean": 101.0, "std": 76.9, "site": None}]  # fmt: skip
    assert show._windows(windows) == "site-A -66 to 208.5, all others -79 to 304 (mean 101, std 76.9)"
    assert (show._windows(windows[:1]), show._windows([])) == ("site-A -66 to 208.5", "none")


def test_nothing_is_trained_and_nothing_else_becomes_optional(fedpeft, small_phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "compare_runs", lambda *args: pytest.fail("it trains"))
    out = tmp_path / "out"
    assert fedpeft("compare", "--data", small_phantom, "--out", out, "--show")[0] == 0
    assert not out.exists()
    # Not even the weights have to be there.
    assert fedpeft("compare", "--show", "--backbone", "sam_vit_h")[0] == 0
    for arguments in (["--data", small_phantom], ["--out", out], []):
        code, _, err = fedpeft("compare", *arguments)
        assert code == 2 and "required" in err
    assert fedpeft("compare", "--show", "--rounds", "0")[0] == 1


def test_what_is_shown_is_what_is_compared(shown, fedpeft, small_phantom, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "compare_runs", lambda plan, runs, *rest: asked.extend(runs) or ({}, []))
    options = ["--data", small_phantom, "--training", "efficient", "--methods", "flap_sam,mole"]
    fedpeft("compare", "--out", tmp_path / "out", "--json", *options)
    found = shown(*options)
    assert len(asked) == len(found) == 2 and all(isinstance(run, Run) for run in asked)
    for fields, run in zip(found, asked, strict=True):
        assert fields["learning_rate"][0] == run.training.learning_rate
        assert fields["rounds"][0] == run.federation.rounds == 20

"""A comparison without FLARE: every cell once, an interrupted one goes on, the picture shows it."""

import json
import shutil
from concurrent.futures import Future

import numpy as np
import pytest
from matplotlib.image import imread

from fedpeft.study import compare as study
from fedpeft.study.compare import Plan, compare, recipe
from fedpeft.study.overview import draw_first
from fedpeft.train.run_folder import DESCRIPTION, RunFolder

SETTINGS = ["local", "centralized"]
MODELS = ["before", "local/site-1", "local/site-2", "centralized"]


class Here:
    """An executor without processes, whose start would take most of the time; it notes what it was given."""

    def __init__(self, *args, **kwargs):
        self.given = []

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None

    def submit(self, function, *args):
        # Twice the same would be two processes writing into one folder.
        assert (function, args) not in self.given
        self.given.append((function, args))
        future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def monkeymodule():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def two_sites(small_phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "two"
    for name in ("site-1", "site-2"):
        shutil.copytree(small_phantom / name, root / name)
    return root


@pytest.fixture(scope="module")
def compared(monkeymodule, two_sites, run, checkpoint, tmp_path_factory):
    """A finished comparison: plan and results."""
    monkeymodule.setattr(study, "ProcessPoolExecutor", Here)
    plan = Plan(two_sites, tmp_path_factory.mktemp("compare"), checkpoint, seconds=1)
    return plan, compare(plan, [run], SETTINGS, lambda line: None)


@pytest.fixture
def again(compared, run, monkeypatch, tmp_path):
    """A copy of the comparison, and a function that compares once more and names what was trained."""
    plan, _ = compared
    out = tmp_path / "out"
    shutil.copytree(plan.out, out)
    trained = []

    def noted(*args, original=study.train_alone, **kwargs):
        trained.append(args[3].relative_to(out).as_posix())
        return original(*args, **kwargs)

    monkeypatch.setattr(study, "train_alone", noted)

    def once_more(run=run, settings=SETTINGS, data=plan.data):
        results = compare(Plan(data, out, plan.checkpoint, 1), [run], settings, lambda line: None)
        return trained, results

    return out, once_more


def test_every_model_is_tested_at_every_site(compared, run):
    plan, results = compared
    (entry,) = results["runs"]
    assert entry["run"] == run.to_dict()
    assert list(entry["models"]) == MODELS
    for model in MODELS:
        assert list(entry["models"][model]) == ["site-1", "site-2"]
        assert all(item["cases"] == 1 for item in entry["models"][model].values())
    assert entry["models"]["local/site-1"] != entry["models"]["before"]
    assert [point[0] for point in entry["history"]["centralized"]] == [0, 1]
    assert sorted(file.name for file in plan.out.iterdir() if file.is_file()) == [
        "cases.csv", "results.json", "table.csv", "table.md",
    ]


def test_the_pool_trains_on_all_cases(compared):
    plan, _ = compared
    (record,) = RunFolder(plan.out / "flap_sam/seed-0/centralized/run").rounds()
    assert record["sites"]["pool"]["cases"] == 4


def test_a_finished_comparison_is_not_trained_again(compared, again):
    _, once_more = again
    trained, results = once_more()
    assert trained == []
    assert results["runs"] == compared[1]["runs"]


@pytest.mark.parametrize("fault", ["running", "no description"])
def test_only_an_unfinished_cell_is_trained_again_to_the_same_result(compared, again, fault):
    out, once_more = again
    cell = out / "flap_sam/seed-0/local/site-2/run"
    if fault == "running":
        RunFolder(cell).finish("running")
    else:
        (cell / DESCRIPTION).unlink()
    trained, results = once_more()
    assert trained == ["flap_sam/seed-0/local/site-2/run"]
    assert results["runs"] == compared[1]["runs"]


def test_another_recipe_is_trained_again(again, run):
    _, once_more = again
    trained, _ = once_more(run.with_(learning_rate=1e-4), ["centralized"])
    assert trained == ["flap_sam/seed-0/centralized/run"]


def test_other_data_are_not_answered_with_the_old_models(again, two_sites, tmp_path):
    _, once_more = again
    data = tmp_path / "other"
    shutil.copytree(two_sites, data)
    file = data / "site-1" / "datalist.json"
    content = json.loads(file.read_text())
    content["training"] = content["training"][:1]
    file.write_text(json.dumps(content))
    trained, _ = once_more(settings=["local"], data=data)
    assert "flap_sam/seed-0/local/site-1/run" in trained


def test_a_setting_named_twice_is_trained_once(again):
    out, once_more = again
    shutil.rmtree(out / "flap_sam")
    trained, results = once_more(settings=["centralized", "centralized"])
    assert trained == ["flap_sam/seed-0/centralized/run"]
    assert list(results["runs"][0]["models"]) == ["before", "centralized"]


def test_data_without_a_case_to_test_are_refused_before_training(again, two_sites, tmp_path):
    out, once_more = again
    data = tmp_path / "untested"
    shutil.copytree(two_sites, data)
    for file in data.glob("*/datalist.json"):
        content = json.loads(file.read_text()) | {"test": []}
        file.write_text(json.dumps(content))
    shutil.rmtree(out / "flap_sam")
    with pytest.raises(ValueError, match="test"):
        once_more(settings=["centralized"], data=data)
    assert not (out / "flap_sam").exists()


def test_the_recipe_is_the_data_sets_with_its_classes(small_phantom, tmp_path):
    assert (recipe(small_phantom).dataset, recipe(small_phantom).classes) == ("phantom", 2)
    site = tmp_path / "north"
    site.mkdir()
    labels = {"0": "background", "1": "a", "2": "b", "3": "c"}
    (site / "datalist.json").write_text(json.dumps({"name": "scans", "labels": labels}))
    assert (recipe(tmp_path).dataset, recipe(tmp_path).classes) == ("folder", 3)


def test_the_picture_has_curves_and_masks(compared, run):
    plan, results = compared
    path = draw_first(plan, run, SETTINGS, results)
    image = imread(path)[..., :3]
    assert path == plan.out / "compare.png"
    assert min(image.shape[:2]) > 400
    left, right = image[:, : image.shape[1] // 3], image[:, image.shape[1] // 3 :]
    # Lines on white at the left; grey slices with coloured outlines at the right.
    assert 0.01 < (left < 0.9).any(-1).mean() < 0.5
    assert (np.ptp(right, axis=-1) < 0.02).mean() > 0.2
    assert (np.ptp(right, axis=-1) > 0.3).mean() > 0.001
    assert len(np.unique((right[..., 0] * 255).astype(int))) > 100
    assert [file.name for file in plan.out.iterdir() if file.name.startswith(".")] == []

"""A comparison without FLARE and processes: each experiment once, an interrupted one goes on, a plot shows it."""

import csv
import json
import shutil
from dataclasses import replace

import doubles
import numpy as np
import pytest
from matplotlib.image import imread

from fedpeft.config.datasets import DATASETS
from fedpeft.config.methods import METHODS
from fedpeft.study.plan.changes import changed_inputs
from fedpeft.study.plan.experiments import LOCK
from fedpeft.study.plots.overview import plot_overview
from fedpeft.study.run import work
from fedpeft.tasks.registry import find_task
from fedpeft.training.server.run_folder import DESCRIPTION, RunFolder

SETTINGS = ["local", "centralized"]
MODELS = ["initial", "local/site-1", "local/site-2", "centralized"]
FILES = ["cases.csv", "results.json", "table.csv", "table.md", "times.json"]


def test_every_model_is_tested_at_every_site(compared, run):
    plan, results = compared
    (entry,) = results["runs"]
    assert (entry["label"], entry["run"]) == ("flap_sam", run.to_dict())
    assert list(entry["models"]) == MODELS
    for model in MODELS:
        assert list(entry["models"][model]) == ["site-1", "site-2"]
        assert all(item["cases"] == 1 for item in entry["models"][model].values())
    assert entry["models"]["local/site-1"] != entry["models"]["initial"]
    assert [point[0] for point in entry["history"]["centralized"]["pool"]] == [0, 1]
    assert sorted(file.name for file in plan.out.iterdir() if file.is_file()) == [LOCK, *FILES]


def test_the_pool_trains_on_all_cases(compared):
    plan, _ = compared
    (record,) = RunFolder(plan.out / "flap_sam/seed-0/centralized/run").rounds()
    assert record["sites"]["pool"]["cases"] == 4


def test_cases_name_the_model_and_the_case(compared):
    plan, _ = compared
    with (plan.out / "cases.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert len(records) == len(MODELS) * 2 * 2
    assert list(records[0]) == [
        "method",
        "rank",
        "seed",
        "setting",
        "trained_at",
        "site",
        "split",
        "case",
        "class",
        "dice",
    ]
    assert [(record["setting"], record["trained_at"]) for record in records[::4]] == [
        ("initial", ""),
        ("local", "site-1"),
        ("local", "site-2"),
        ("centralized", ""),
    ]


def test_no_time_is_among_the_results_but_in_a_file_of_its_own(compared):
    plan, _ = compared
    assert "seconds" not in (plan.out / "results.json").read_text()
    found = json.loads((plan.out / "times.json").read_text())
    assert list(found) == [
        f"flap_sam, seed 0, {name}" for name in ("initial", "local site-1", "local site-2", "centralized")
    ]
    assert list(found["flap_sam, seed 0, initial"]) == ["test"]
    assert list(found["flap_sam, seed 0, centralized"]) == ["train", "test", "round"]


def test_a_finished_comparison_is_neither_trained_nor_tested_again(compared, again):
    out, once_more = again
    before = (out / "results.json").read_bytes()
    assert once_more() == ([], compared[1])
    assert (out / "results.json").read_bytes() == before


@pytest.mark.parametrize("fault", ["running", "no description"])
def test_only_an_unfinished_experiment_is_trained_again_to_the_same_result(compared, again, fault):
    out, once_more = again
    experiment = out / "flap_sam/seed-0/local/site-2/run"
    if fault == "running":
        RunFolder(experiment).finish("running")
    else:
        (experiment / DESCRIPTION).unlink()
    name = "flap_sam, seed 0, local site-2"
    assert once_more() == ([f"train {name}", f"test {name}"], compared[1])


def test_a_trained_experiment_without_scores_is_tested_only(compared, again):
    out, once_more = again
    (out / "flap_sam/seed-0/local/site-2/scores-test.json").unlink()
    assert once_more() == (["test flap_sam, seed 0, local site-2"], compared[1])


SCORING = find_task("segmentation").scoring(("hd95", "nsd"))


def files(out):
    """The results as bytes, without the times and the plots."""
    return {name: (out / name).read_bytes() for name in FILES if name != "times.json"}


def test_further_metrics_test_the_trained_models_again_and_add_to_every_file(compared, again):
    out, once_more = again
    plain, before = compared[1], files(out)
    done, results = once_more(scoring=SCORING)
    assert done == [
        f"test flap_sam, seed 0, {name}" for name in ("initial", "local site-1", "local site-2", "centralized")
    ]
    assert results == json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    site = dict(results["runs"][0]["models"]["centralized"]["site-1"])
    metrics = site.pop("metrics")
    assert list(metrics) == ["dice", "hd95", "nsd"] and metrics["dice"]["mean"] == site["dice"]
    assert metrics["hd95"]["mean"] > 0 and site.pop("one_mask_empty") >= 0
    assert site == plain["runs"][0]["models"]["centralized"]["site-1"]
    with (out / "cases.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert list(records[0])[-4:] == ["dice", "hd95", "nsd", "empty"]
    assert np.isfinite([float(record[name]) for record in records for name in ("hd95", "nsd")]).all()
    assert "HD95 in mm, lower is better" in (out / "table.md").read_text()
    # Once tested, fewer metrics need no further test, and none gives the very files from before.
    assert once_more(scoring=SCORING) == ([], results)
    assert once_more(scoring=replace(SCORING, metrics=("hd95",), nsd_tolerance=None))[0] == []
    assert once_more() == ([], plain)
    assert files(out) == before


def test_another_tolerance_is_tested_again(again):
    _, once_more = again
    once_more(settings=["centralized"], scoring=SCORING)
    done, results = once_more(settings=["centralized"], scoring=replace(SCORING, nsd_tolerance=30.0))
    assert len(done) == 2 and results["summary"][0]["metrics"]["nsd"]["tolerance"] == 30.0


def test_another_split_is_tested_without_training_and_does_not_lose_the_first(compared, again):
    _, once_more = again
    done, _ = once_more(settings=["centralized"], split="validation")
    assert done == ["test flap_sam, seed 0, initial", "test flap_sam, seed 0, centralized"]
    assert once_more() == ([], compared[1])


def test_a_finished_training_is_not_replaced_by_another_recipe(again, run):
    out, once_more = again
    before = (out / "flap_sam/seed-0/centralized/run/global.safetensors").read_bytes()
    with pytest.raises(ValueError, match="trained with other learning_rate; give another --out, or remove"):
        once_more([run.with_(learning_rate=1e-4)], ["centralized"])
    assert (out / "flap_sam/seed-0/centralized/run/global.safetensors").read_bytes() == before
    shutil.rmtree(out / "flap_sam/seed-0/centralized")
    done, _ = once_more([run.with_(learning_rate=1e-4)], ["centralized"])
    assert done == [
        "test flap_sam, seed 0, initial",
        *(f"{what} flap_sam, seed 0, centralized" for what in ("train", "test")),
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"site-1": 0.03, "site-2": 1.0}, {"site-1": 0.1, "site-2": 1.0}, ["site_weights of site-1: 0.03, here 0.1"]),
        ({"site-1": 0.03}, {"site-2": 0.1}, [f"site_weights of site-{n}: {v}" for n, v in
                                             ((1, "0.03, here none"), (2, "none, here 0.1"))]),
        (None, {"site-1": 0.1}, ["site_weights"]),
        ({"site-1": 0.1}, {"site-1": 0.1}, []),
    ],
)  # fmt: skip
def test_changed_weights_are_named_by_site(run, old, new, expected):
    kept, made = (json.loads(json.dumps({"run": run.with_(site_weights=weights).to_dict()})) for weights in (old, new))
    assert changed_inputs(kept, made) == expected


@pytest.mark.parametrize("entry", ["method", "data set"])
def test_a_changed_entry_is_another_training(again, run, monkeypatch, entry):
    _, once_more = again
    if entry == "method":
        monkeypatch.setitem(METHODS._entries, run.model.method, replace(run.method, rules=(("*", "mean"),)))
    else:
        old = DATASETS[run.data.dataset]
        changed = replace(old, preprocessing=old.preprocessing.model_copy(update={"scope": "volume"}))
        monkeypatch.setitem(DATASETS._entries, run.data.dataset, changed)
    with pytest.raises(ValueError, match="other (preprocessing|method);"):
        once_more(settings=["centralized"])


def test_more_methods_ranks_and_seeds_add_to_what_is_there(again, run):
    out, once_more = again
    runs = [run, run.with_(rank=4), run.with_(seed=1)]
    done, results = once_more(runs, ["centralized"])
    names = ["flap_sam-r4, seed 0", "flap_sam, seed 1"]
    assert done == [
        f"{what} {name}, {setting}"
        for name in names
        for what, setting in (("test", "initial"), ("train", "centralized"), ("test", "centralized"))
    ]
    assert [entry["label"] for entry in results["runs"]] == ["flap_sam", "flap_sam-r4", "flap_sam"]
    assert [(item["label"], item["seeds"]) for item in results["summary"]] == [
        ("flap_sam", [0, 1]),
        ("flap_sam-r4", [0]),
    ]
    assert (out / "flap_sam-r4/seed-0/centralized/run" / DESCRIPTION).is_file()


def test_two_runs_of_one_name_are_refused(again, run):
    _, once_more = again
    with pytest.raises(ValueError, match="flap_sam, seed 0"):
        once_more([run, run.with_(learning_rate=1e-4)])


def test_other_data_are_not_answered_with_the_old_models(again, two_sites, tmp_path):
    """Also where a site's folder is a link to elsewhere; what no datalist names does not matter."""
    _, once_more = again
    data, disk = tmp_path / "other", tmp_path / "disk"
    shutil.copytree(two_sites, data)
    (data / "site-1").rename(disk)
    (data / "site-1").symlink_to(disk)
    (data / "notes.txt").write_text("seen by nobody")
    assert once_more(settings=["local"], data=data)[0] == []
    file = disk / "datalist.json"
    content = json.loads(file.read_text())
    content["training"] = content["training"][:1]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="other data"):
        once_more(settings=["local"], data=data)


def test_a_setting_named_twice_is_trained_once_and_its_end_is_told(again):
    out, once_more = again
    shutil.rmtree(out / "flap_sam")
    events = []
    done, results = once_more(
        settings=["centralized", "centralized"], report=lambda progress, event: events.append((progress.line(), event))
    )
    assert [item for item in done if item.startswith("train")] == ["train flap_sam, seed 0, centralized"]
    assert list(results["runs"][0]["models"]) == ["initial", "centralized"]
    # The rounds are told by worker processes, of which there are none here.
    assert [line.partition(" ")[0] for line, _ in events] == ["0/2", "1/2", "2/2"]
    assert {event.rpartition(" in ")[0] or event for _, event in events} == {
        "no experiment has finished before",
        "flap_sam, seed 0, initial: finished",
        "flap_sam, seed 0, centralized: finished",
    }


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


@pytest.mark.parametrize("settings", [["local", "centralized"], ["local"]])
def test_an_experiment_of_before_a_field_was_added_is_finished(again, settings):
    """The files lack the field, whose default is what that version did."""
    out, once_more = again
    for name in ("made_from.json", "scores-test.json"):
        for file in out.rglob(name):
            content = json.loads(file.read_text())
            del content["run"]["training"]["weight_decay_on"], content["run"]["training"]["warmup_steps"]
            file.write_text(json.dumps(content))
    assert once_more(settings=settings)[0] == []
    for file in out.rglob("made_from.json"):
        content = json.loads(file.read_text())
        content["run"]["training"]["warmup_steps"] = 7
        file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="trained with other warmup_steps"):
        once_more(settings=settings)


def test_a_federation_of_sites_without_weights_is_refused_before_it_starts(again, run):
    out, once_more = again
    named = run.with_(site_weights={"site-1": 1.0})
    with pytest.raises(ValueError, match="site-2: it has no weight"):
        once_more(runs=[named], settings=["federated"])
    shutil.rmtree(out / "flap_sam")
    done, _ = once_more(runs=[named], settings=["centralized"])
    assert "train flap_sam, seed 0, centralized" in done


def test_the_federated_experiment_goes_through_the_simulator_once_and_counts_its_bytes(again, monkeypatch):
    """With a stand-in for the simulator: see ``doubles``."""
    out, once_more = again
    monkeypatch.setattr(work, "simulate", doubles.simulate)
    events = []
    done, results = once_more(settings=["local", "federated"], report=lambda progress, event: events.append(event))
    assert done == ["test flap_sam, seed 0, federated"]
    experiment = out / "flap_sam/seed-0/federated"
    assert sorted(file.name for file in experiment.iterdir()) == [
        "job",
        "made_from.json",
        "run",
        "scores-test.json",
        "times.json",
        "workspace",
    ]
    assert (experiment / "job" / "flap_sam_phantom" / "meta.json").is_file()
    (item,) = results["summary"]
    assert (item["bytes_up"], item["bytes_down"]) == (doubles.BYTES, doubles.BYTES)
    assert item["gain"]["low"] <= item["gain"]["average"] <= item["gain"]["high"]
    assert once_more(settings=["local", "federated"]) == ([], results)
    assert events[0] == "3 experiments have finished before"


def test_the_overview_has_curves_and_masks(compared, run):
    plan, results = compared
    path = plot_overview(plan, run, SETTINGS, results)
    image = imread(path)[..., :3]
    assert path == plan.out / "compare.png"
    assert min(image.shape[:2]) > 400
    left, right = image[:, : image.shape[1] // 3], image[:, image.shape[1] // 3 :]
    # Lines on white at the left; grey slices with coloured outlines at the right.
    assert 0.01 < (left < 0.9).any(-1).mean() < 0.5
    assert (np.ptp(right, axis=-1) < 0.02).mean() > 0.2
    assert (np.ptp(right, axis=-1) > 0.3).mean() > 0.001
    assert len(np.unique((right[..., 0] * 255).astype(int))) > 100
    assert [file.name for file in plan.out.iterdir() if file.name.startswith(".")] == [LOCK]

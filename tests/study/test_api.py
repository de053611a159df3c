"""The Python API does what the commands do."""

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest

import fedpeft
from fedpeft.cli.main import main
from fedpeft.config.jobs import JOBS
from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_sites
from fedpeft.flare.rendering import render
from fedpeft.training.server.in_process import train_in_process
from fedpeft.training.server.run_folder import BEST


def printed(capsys, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_functions_are_listed_and_imported_when_they_are_used():
    code = """
import sys, fedpeft
print({"torch", "monai", "nvflare"} & sys.modules.keys(), set(fedpeft.__all__) <= set(dir(fedpeft)))
assert all(hasattr(fedpeft, name) for name in fedpeft.__all__)
"""
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert ran.stdout == "set() True\n"
    assert fedpeft.__all__ == ["__version__", "compare", "evaluate", "load_run", "render_job"]
    with pytest.raises(AttributeError, match="unknown"):
        _ = fedpeft.unknown


def test_a_run_is_found_from_any_parent_and_predicts_as_infer_does(finished, small_phantom, tmp_path, capsys):
    image, out = small_phantom / "site-1" / "case-01" / "image.nii.gz", tmp_path / "mask.nii.gz"
    run = fedpeft.load_run(finished.path.parent)
    assert run.run == finished.run and run.rounds() == finished.rounds() and len(run.rounds()) == 1
    mask, affine = run.predict(image)
    counts = printed(capsys, "infer", "--run", finished.path, "--image", image, "--out", out, "--json")["voxels"]
    written = nibabel.load(out)
    assert mask.dtype == np.uint8 and np.array_equal(mask, np.asanyarray(written.dataobj))
    assert np.array_equal(affine, nibabel.load(image).affine)
    assert list(counts.values()) == [int((mask == index).sum()) for index in (1, 2)]
    assert fedpeft.load_run(str(finished.path), best=True).which == BEST


def test_a_classifier_predicts_probabilities(small_images, tmp_path):
    run = make_run("linear_probe", "images", "vit_tiny", classes=3, rounds=1, image_size=32, initial="random")
    site = read_sites(small_images)[0]
    folder = train_in_process(run, [site], None, tmp_path / "run", "local")
    found = fedpeft.load_run(folder.path).predict(site.splits["test"][0].image)
    assert list(found) == list(folder.run.label_table.values())
    assert sum(found.values()) == pytest.approx(1)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        fedpeft.load_run(tmp_path)


def test_evaluate_returns_what_the_command_prints(finished, small_phantom, tmp_path, capsys):
    options = ["--data", small_phantom, "--split", "validation", "--out", tmp_path, "--json"]
    expected = printed(capsys, "evaluate", "--run", finished.path, *options)
    assert fedpeft.evaluate(finished.path, small_phantom, "validation") == expected
    assert fedpeft.evaluate(fedpeft.load_run(finished.path), str(small_phantom), "validation") == expected


def test_evaluate_takes_metrics_and_keeps_masks_as_the_command_does(finished, small_phantom, tmp_path, capsys):
    options = ["--metrics", "nsd, dice", "--nsd-tolerance", 3, "--save-predictions", tmp_path / "masks", "--json"]
    expected = printed(capsys, "evaluate", "--run", finished.path, "--data", small_phantom, "--out", tmp_path, *options)
    found = fedpeft.evaluate(
        finished.path, small_phantom, metrics=["nsd"], nsd_tolerance=3, save_predictions=str(tmp_path / "masks")
    )
    assert found == expected and list(found["metrics"]) == ["dice", "nsd"]
    assert found["predictions"] == str(tmp_path / "masks") and len(list((tmp_path / "masks").glob("*/*.nii.gz"))) == 3
    with pytest.raises(ValueError, match="no metric 'auroc'"):
        fedpeft.evaluate(finished.path, small_phantom, metrics=["auroc"])


def test_compare_does_what_the_command_does(here, two_sites, tmp_path):
    events = []
    results = fedpeft.compare(
        two_sites,
        tmp_path / "out",
        methods=["flap_sam"],
        settings=["local"],
        rounds=1,
        seed=3,
        report=lambda progress, event: events.append(event),
        metrics=["assd"],
        rank=2,
        image_size=32,
    )
    assert list(results["summary"][0]["metrics"]) == ["dice", "assd"]
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert [
        (entry["label"], entry["run"]["training"]["seed"], entry["run"]["federation"]["rounds"])
        for entry in results["runs"]
    ] == [("flap_sam-r2", 3, 1)]
    assert any(event.startswith("flap_sam-r2, seed 3, local site-2: finished") for event in events)
    assert (tmp_path / "out" / "compare.png").is_file() and (tmp_path / "out" / "table.md").is_file()


def files(folder):
    return {str(f.relative_to(folder)): json.loads(f.read_text()) for f in folder.rglob("*") if f.is_file()}


def test_a_job_is_rendered_as_it_is_or_changed_under_its_own_name(tmp_path):
    assert files(fedpeft.render_job("flap_sam_folder", tmp_path)) == render(JOBS["flap_sam_folder"])
    folder = fedpeft.render_job(
        "dora_kidneys", tmp_path, job="flap_sam_folder", method="dora", labels=("kidney", "tumour"), min_sites=4
    )
    assert folder == tmp_path / "dora_kidneys"
    found = files(folder)
    assert (found["meta.json"]["name"], found["meta.json"]["min_clients"]) == ("dora_kidneys", 4)
    text = json.dumps(found["app/config/config_fed_client.json"])
    assert '"dora"' in text and '["kidney", "tumour"]' in text and '"classes": 2' in text


@pytest.mark.parametrize(
    ("name", "arguments", "part"),
    [
        ("mine", {}, "no job is called 'mine'"),
        ("flap_sam_folder", {"rounds": 3}, "name of its own"),
        ("mine", {"job": "flap_sam_folder", "rounds": 0}, "rounds"),
        ("mine", {"job": "flap_sam_folder", "labels": ("a", "b"), "classes": 3}, "labels"),
        ("mine", {"job": "flap_sam_kits19", "base_learning_rate": 1e-3}, "the learning rate is 0.0008"),
        ("../mine", {"job": "flap_sam_folder"}, "job name is '../mine'"),
    ],
)
def test_a_job_that_cannot_be_rendered_leaves_nothing(tmp_path, name, arguments, part):
    with pytest.raises(ValueError, match=part):
        fedpeft.render_job(name, tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []

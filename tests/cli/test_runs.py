"""The commands that use a run: masks on the image's own grid, scores in files, a comparison as JSON."""

import csv
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import nibabel
import numpy as np
import pytest

from fedpeft.cli.main import main
from fedpeft.data.datalist import read_site
from fedpeft.study.run import compare as study


def first(root, site):
    return read_site(root / site).splits["test"][0].image


# The sites' files have other axes each; those of the third are oblique.
@pytest.mark.parametrize(("site", "codes"), [("site-1", "RAS"), ("site-2", "LPS"), ("site-3", "PIR")])
def test_infer_writes_the_mask_on_the_images_grid(fedpeft, finished, small_phantom, tmp_path, site, codes):
    image, out = first(small_phantom, site), tmp_path / "a new folder" / "mask.nii.gz"
    before = image.read_bytes()
    code, text, err = fedpeft("infer", "--run", finished.path.parent, "--image", image, "--out", out, "--json")
    assert code == 0, err
    given, mask = nibabel.load(image), nibabel.load(out)
    assert "".join(nibabel.aff2axcodes(given.affine)) == codes
    assert mask.shape == given.shape
    assert np.array_equal(mask.affine, given.affine)
    assert all(np.array_equal(mask.header[k], given.header[k]) for k in ("pixdim", "sform_code", "qform_code"))
    values = np.asarray(mask.dataobj)
    assert values.dtype == np.uint8
    found = json.loads(text)
    assert found == {
        "mask": str(out),
        "voxels": {"organ": int((values == 1).sum()), "lesion": int((values == 2).sum())},
        "normalised_by": "volume",
    }
    assert found["voxels"]["organ"] > 0
    assert image.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_infer_of_one_case_is_the_same_in_other_axes(fedpeft, finished, small_phantom, tmp_path):
    image = nibabel.load(first(small_phantom, "site-3"))
    turn = nibabel.orientations.axcodes2ornt("LSA")
    here = nibabel.io_orientation(image.affine)
    nibabel.save(image, tmp_path / "one.nii.gz")
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(here, turn)), tmp_path / "two.nii")
    masks = []
    for name in ("one.nii.gz", "two.nii"):
        out = tmp_path / f"mask-{name}"
        assert fedpeft("infer", "--run", finished.path, "--image", tmp_path / name, "--out", out)[0] == 0
        masks.append(np.asarray(nibabel.as_closest_canonical(nibabel.load(out)).dataobj))
    assert np.array_equal(*masks)


@pytest.mark.parametrize("name", ["mask.png", "mask.mgz", "mask"])
def test_a_mask_that_is_no_nifti_is_refused_in_a_line(fedpeft, finished, small_phantom, tmp_path, name):
    arguments = ["--image", first(small_phantom, "site-1"), "--out", tmp_path / name]
    code, _, err = fedpeft("infer", "--run", finished.path, *arguments)
    assert code == 1
    assert name in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_mask_does_not_replace_its_image(fedpeft, finished, small_phantom, tmp_path):
    image = tmp_path / "image.nii.gz"
    shutil.copy(first(small_phantom, "site-1"), image)
    before = image.read_bytes()
    code, _, err = fedpeft("infer", "--run", finished.path, "--image", "a.jpg", "--out", tmp_path / "a.png")
    assert code == 1 and "this run segments volumes (NIfTI); a.jpg is an image (JPEG or PNG)" in err
    code, _, err = fedpeft("infer", "--run", finished.path, "--image", image, "--out", image)
    assert image.read_bytes() == before
    assert code == 1 and "image.nii.gz" in err


def test_evaluate_writes_and_prints_the_same(fedpeft, finished, small_phantom, tmp_path):
    arguments = ["evaluate", "--run", finished.path, "--data", small_phantom, "--out", tmp_path / "out"]
    code, text, err = fedpeft(*arguments, "--json")
    assert code == 0, err
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert json.loads(text) == content
    assert content["run"] == str(finished.path)
    assert list(content["sites"]) == ["site-1", "site-2", "site-3"]
    with (tmp_path / "out" / "evaluation.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert [record | {"dice": float(record["dice"])} for record in records] == content["cases"]
    assert {record["split"] for record in records} == {"test"}


def test_evaluate_prints_a_table_and_writes_beside_the_run(fedpeft, finished, small_phantom, tmp_path):
    shutil.copytree(finished.path, tmp_path / "copy" / "run")
    arguments = ["--run", tmp_path / "copy", "--data", small_phantom, "--split", "validation", "--best"]
    code, text, err = fedpeft("evaluate", *arguments)
    assert code == 0, err
    assert all(word in text for word in ("site-1", "site-3", "mean of sites", "organ", "lesion", "evaluation.csv"))
    content = json.loads((tmp_path / "copy" / "run" / "evaluation.json").read_text())
    assert content["payload"] == "best.safetensors"
    assert {record["split"] for record in content["cases"]} == {"validation"}


def test_evaluate_prints_a_table_for_each_metric_and_where_the_masks_are(fedpeft, finished, small_phantom, tmp_path):
    options = ["--out", tmp_path, "--metrics", "dice,hd95,nsd", "--save-predictions", tmp_path / "masks"]
    code, text, err = fedpeft("evaluate", "--run", finished.path, "--data", small_phantom, *options)
    assert code == 0, err
    for word in ("Dice, higher is better, test cases", "HD95 in mm, lower is better", "NSD at 2 mm", "95 % interval"):
        assert word in text
    assert "one empty is Dice 0" in text and f"masks: 3 in {tmp_path / 'masks'}, 0 of them replaced" in text


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--metrics", "iou"], "segmentation has no metric 'iou', only dice, hd95, assd, nsd"),
        (["--nsd-tolerance", "1"], "--nsd-tolerance 1 has no effect without nsd in --metrics"),
    ],
)
def test_a_metric_that_is_none_is_refused_in_a_line(fedpeft, finished, small_phantom, tmp_path, options, part):
    code, _, err = fedpeft("evaluate", "--run", finished.path, "--data", small_phantom, "--out", tmp_path, *options)
    assert (code, err.count("\n")) == (1, 1) and part in err
    code, _, err = fedpeft("compare", "--data", small_phantom, "--out", tmp_path / "out", *options)
    assert (code, err.count("\n")) == (1, 1) and part in err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def compared(small_phantom, tmp_path_factory):
    """A comparison of one site in processes of its own, as JSON: its folder, its arguments and how it ended."""
    root = tmp_path_factory.mktemp("compared")
    shutil.copytree(small_phantom / "site-1", root / "data" / "site-1")
    options = ["--settings", "local", "--rounds", 1, "--side", 32, "--seed", "3", "--out", root / "out"]
    arguments = list(map(str, ["compare", "--data", root / "data", *options]))
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main([*arguments, "--json"])
    return root / "out", arguments, (code, out.getvalue(), err.getvalue())


def test_compare_trains_in_processes_and_prints_nothing_but_json(compared):
    out, _, (code, text, err) = compared
    assert code == 0, err
    results = json.loads((out / "results.json").read_text())
    (entry,) = results["runs"]
    assert (
        entry["run"]["federation"]["rounds"],
        entry["run"]["model"]["image_size"],
        entry["run"]["training"]["seed"],
    ) == (1, 32, 3)
    assert list(entry["models"]) == ["initial", "local/site-1"]
    assert json.loads(text) == results
    assert "flap_sam, seed 3, local site-1: round 1 of 1" in err
    for name in ("compare", "bytes", "curves", "seeds"):
        assert (out / f"{name}.png").stat().st_size > 10_000


def test_compare_ends_with_a_table_that_explains_itself(fedpeft, compared):
    out, arguments, _ = compared
    code, text, err = fedpeft(*arguments)
    assert code == 0, err
    progress, _, table = text.partition("\n")
    assert "2/2 experiments" in progress and "2 experiments have finished before" in progress
    assert all(word in table for word in ("Initial model", "Local everywhere", "Average", "site-1", "parameters train"))
    assert "Dice of test cases, seed 3." in table and "Local: each site's own model" in table
    assert f"{out}/table.md" in table and "gain.png" not in table


def test_compare_fails_in_a_line(fedpeft, small_phantom, tmp_path, monkeypatch):
    def broken(*args):
        raise ValueError("site-1: image.nii.gz is damaged")

    monkeypatch.setattr(study, "read_sites", broken)
    code, _, err = fedpeft("compare", "--data", small_phantom, "--out", tmp_path)
    assert (code, err) == (1, "fedpeft compare: site-1: image.nii.gz is damaged\n")

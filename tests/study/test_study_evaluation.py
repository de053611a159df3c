"""A run's model on a folder of sites."""

import csv
import json
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_site, read_sites
from fedpeft.study.apply.evaluation import evaluate, write_evaluation
from fedpeft.study.apply.predictions import PredictionFolder
from fedpeft.tasks.registry import find_task
from fedpeft.training.server.run_folder import BEST, GLOBAL


@pytest.fixture
def data(small_phantom, tmp_path):
    """A copy of the data, and a function that changes one site's datalist."""
    root = tmp_path / "data"
    shutil.copytree(small_phantom, root)

    def change(site, edit):
        file = root / site / "datalist.json"
        content = json.loads(file.read_text())
        edit(content)
        file.write_text(json.dumps(content))
        return root

    return change


@pytest.mark.parametrize("which", [GLOBAL, BEST])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_every_class_of_every_case_of_every_site_is_scored(finished, small_phantom, checkpoint, split, which):
    result = evaluate(finished, small_phantom, split, checkpoint, which)
    expected = []
    for number in (1, 2, 3):
        datalist = json.loads((small_phantom / f"site-{number}" / "datalist.json").read_text())
        expected += [
            (f"site-{number}", split, case["case"], label) for case in datalist[split] for label in ("organ", "lesion")
        ]
    assert [(item.site, item.split, item.case, item.label) for item in result.scores] == expected
    assert all(0 <= item.value <= 1 for item in result.scores)
    assert result.normalised == {"site-1": "site", "site-2": "site", "site-3": "site"}


def test_files_hold_the_cases_and_their_means(finished, small_phantom, checkpoint, tmp_path):
    result = evaluate(finished, small_phantom, "training", checkpoint, GLOBAL)
    file = write_evaluation(result, tmp_path / "out")
    content = json.loads(file.read_text())
    with (tmp_path / "out" / "evaluation.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert content["cases"] == [record | {"dice": float(record["dice"])} for record in records]
    assert len(records) == 3 * 2 * 2
    for site, item in content["sites"].items():
        mine = [record for record in content["cases"] if record["site"] == site]
        means = {
            label: sum(record["dice"] for record in mine if record["label"] == label) / 2
            for label in ("organ", "lesion")
        }
        assert item["classes"] == pytest.approx(means)
        assert item["dice"] == pytest.approx(sum(means.values()) / 2)
        assert (item["cases"], item["normalised_by"]) == (2, "site")
    assert content["dice"] == pytest.approx(sum(item["dice"] for item in content["sites"].values()) / 3)
    columns, table = result.table()
    assert columns == ["site", "cases", "organ", "lesion", "mean"]
    assert [record[0] for record in table] == ["site-1", "site-2", "site-3", "mean of sites"]
    assert table[-1][-1] == f"{content['dice']:.3f}"


def test_a_folder_without_statistics_is_normalised_by_volume_and_says_so(finished, checkpoint, data):
    root = data("site-2", lambda content: content.update(statistics=None))
    found = evaluate(finished, root, "test", checkpoint, GLOBAL).normalised
    assert found == {"site-1": "site", "site-2": "volume", "site-3": "site"}


TABLES = [
    {"0": "background", "1": "organ", "2": "lesion", "3": "cyst"},
    # As many classes, but 1 and 2 mean something else: every Dice would be that of the wrong class.
    {"0": "background", "1": "lesion", "2": "organ"},
]


@pytest.mark.parametrize("table", TABLES, ids=["more", "swapped"])
def test_labels_that_are_not_the_runs_are_refused(finished, checkpoint, data, table):
    for site in ("site-1", "site-2", "site-3"):
        root = data(site, lambda content: content.update(labels=table))
    with pytest.raises(ValueError, match="site-1.*labels"):
        evaluate(finished, root, "test", checkpoint, GLOBAL)


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda content: content["test"][0].pop("label"), "has no label"),
        (lambda content: content.update(test=[]), "no case for test"),
    ],
)
def test_a_site_that_cannot_be_scored_is_named(finished, checkpoint, data, edit, part):
    root = data("site-3", edit)
    with pytest.raises(ValueError, match=f"site-3.*{part}"):
        evaluate(finished, root, "test", checkpoint, GLOBAL)


SCORING = find_task("segmentation").scoring(("dice", "hd95", "assd", "nsd"), 1.5)


@pytest.fixture(scope="module")
def measured(finished, small_phantom, checkpoint, tmp_path_factory):
    """An evaluation with all metrics and masks: its content, its lines as text, and the folder of the masks."""
    out = tmp_path_factory.mktemp("measured")
    result = evaluate(finished, small_phantom, "training", checkpoint, GLOBAL, SCORING, out / "masks")
    write_evaluation(result, out)
    with (out / "evaluation.csv").open() as stream:
        return result, json.loads((out / "evaluation.json").read_text()), list(csv.DictReader(stream)), out / "masks"


def test_further_metrics_add_columns_and_change_no_other(measured, finished, small_phantom, checkpoint):
    _, content, records, _ = measured
    plain = evaluate(finished, small_phantom, "training", checkpoint, GLOBAL).to_dict()
    assert [{key: item[key] for key in plain["cases"][0]} for item in content["cases"]] == plain["cases"]
    assert content["dice"] == plain["dice"] and "metrics" not in plain and "metrics" not in plain["sites"]["site-1"]
    assert list(records[0]) == ["site", "split", "case", "label", "dice", "hd95", "assd", "nsd", "empty"]
    numbers = [float(record[name]) for record in records for name in ("dice", "hd95", "assd", "nsd")]
    assert len(numbers) == 4 * 12 and np.isfinite(numbers).all()
    assert any(float(record["hd95"]) > 0 for record in records)


def test_every_metric_has_its_mean_with_an_interval_per_class_and_site(measured):
    _, content, _, _ = measured
    assert {name: (item["unit"], item["better"]) for name, item in content["metrics"].items()} == {
        "dice": ("", "higher"),
        "hd95": ("mm", "lower"),
        "assd": ("mm", "lower"),
        "nsd": ("", "higher"),
    }
    assert content["metrics"]["nsd"]["tolerance"] == 1.5
    for name, overall in content["metrics"].items():
        sites = []
        for site, item in content["sites"].items():
            found = item["metrics"][name]
            for label, values in found["classes"].items():
                mine = [case[name] for case in content["cases"] if (case["site"], case["label"]) == (site, label)]
                assert len(mine) == 2 and values["mean"] == pytest.approx(sum(mine) / 2)
                # Of two cases, a quarter of the resamples has one of them twice.
                assert (values["low"], values["high"]) == pytest.approx((min(mine), max(mine)))
            sites.append(sum(values["mean"] for values in found["classes"].values()) / 2)
            assert found["mean"] == pytest.approx(sites[-1])
        assert overall["mean"] == pytest.approx(sum(sites) / 3)
        assert overall["low"] <= overall["mean"] <= overall["high"]
    assert content["metrics"]["hd95"]["low"] < content["metrics"]["hd95"]["high"]
    empty = [case for case in content["cases"] if case["empty"] in ("label", "prediction")]
    assert content["one_mask_empty"] == len(empty) == sum(i["one_mask_empty"] for i in content["sites"].values())


def test_the_tables_say_unit_and_direction(measured):
    result, content, _, _ = measured
    tables = result.metric_tables()
    assert [title for title, _, _ in tables] == [
        "Dice, higher is better",
        "HD95 in mm, lower is better",
        "ASSD in mm, lower is better",
        "NSD at 1.5 mm, higher is better",
    ]
    _, columns, lines = tables[1]
    assert columns == ["site", "cases", "organ", "lesion", "mean", "95 % interval"]
    assert [line[0] for line in lines] == ["site-1", "site-2", "site-3", "mean of sites"]
    assert lines[-1][-2] == f"{content['metrics']['hd95']['mean']:.3f}"
    assert lines[-1][-1] == "{low:.3f} to {high:.3f}".format(**content["metrics"]["hd95"])


def test_scores_that_are_all_the_same_have_an_interval_and_classes_a_mean(measured):
    result = measured[0]
    scores = [replace(item, value=0.0, others={"nsd": 0.0}) for item in result.scores]
    _, (_, _, lines) = replace(result, scores=scores, scoring=SCORING).metric_tables()
    assert lines[0] == ["site-1", "2", "0.000", "0.000", "0.000", "0.000 to 0.000"]
    assert lines[-1] == ["mean of sites", "", "0.000", "0.000", "0.000", "0.000 to 0.000"]
    one = {site: next(item.case for item in scores if item.site == site) for site in ("site-1", "site-2", "site-3")}
    scores = [item for item in scores if item.case == one[item.site]]
    _, (_, _, lines) = replace(result, scores=scores, scoring=SCORING).metric_tables()
    assert {line[-1] for line in lines} == {"unknown: one case"}


def test_the_masks_on_disk_have_the_dice_of_the_table(measured, small_phantom):
    """Read back with nibabel alone, beside the label in the file's own axes; the third site's are oblique."""
    result, _, records, masks = measured
    assert len(list(masks.glob("*/*"))) == result.predictions.written == 6
    checked = 0
    for number in (1, 2, 3):
        for case in read_site(small_phantom / f"site-{number}").splits["training"]:
            written, image, label = (
                nibabel.load(p) for p in (masks / case.site / f"{case.case}.nii.gz", case.image, case.label)
            )
            assert written.get_data_dtype() == np.uint8 and written.shape == image.shape
            assert np.array_equal(written.affine, image.affine)
            assert all(
                np.array_equal(written.header[k], image.header[k]) for k in ("pixdim", "sform_code", "qform_code")
            )
            found, truth = np.asarray(written.dataobj), np.asarray(label.dataobj)
            for index, name in ((1, "organ"), (2, "lesion")):
                mine, true = found == index, truth == index
                total = mine.sum() + true.sum()
                dice = 2 * (mine & true).sum() / total if total else 1.0
                (record,) = [r for r in records if (r["site"], r["case"], r["label"]) == (case.site, case.case, name)]
                assert float(record["dice"]) == pytest.approx(dice, abs=1e-6)
                checked += dice > 0
    assert checked >= 3


def test_masks_replace_those_of_the_same_name_alone(finished, small_phantom, checkpoint, tmp_path):
    """A folder of another split, and a file of the user's own."""
    (tmp_path / "site-1").mkdir()
    (tmp_path / "site-1" / "notes.txt").write_text("mine")
    for _ in range(2):
        result = evaluate(finished, small_phantom, "test", checkpoint, GLOBAL, predictions=tmp_path)
    assert (result.predictions.written, result.predictions.replaced) == (3, 3)
    result = evaluate(finished, small_phantom, "validation", checkpoint, GLOBAL, predictions=tmp_path)
    assert (result.predictions.written, result.predictions.replaced) == (3, 0)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    names = [
        f"{site.name}/{case.case}.nii.gz"
        for site in read_sites(small_phantom)
        for split in ("validation", "test")
        for case in site.splits[split]
    ]
    assert files == sorted(["site-1/notes.txt", *names])


@pytest.mark.parametrize(
    "case", ["../../escaped", "/etc/escaped", "a/b", "..", ".", "", "a%2Fb", "a\\b", "line\nbreak"]
)
def test_no_name_of_a_case_leads_out_of_the_folder(finished, tmp_path, case):
    folder = PredictionFolder(tmp_path / "masks", finished.run)
    file = folder.file("site-1", case)
    assert file.parent.resolve() == tmp_path / "masks" / "site-1" and file.name.endswith(".nii.gz")
    assert "\n" not in file.name
    assert folder.file("..", "a").parent.resolve().parent == tmp_path / "masks"


def test_odd_names_have_files_of_their_own(finished, checkpoint, data, tmp_path):
    def edit(content):
        for entry, name in zip(content["training"], ("../up", "%2E%2E%2Fup"), strict=True):
            entry["case"] = name

    root = data("site-2", edit)
    evaluate(finished, root, "training", checkpoint, GLOBAL, predictions=tmp_path / "masks")
    assert sorted(path.name for path in (tmp_path / "masks" / "site-2").iterdir()) == [
        "%252E%252E%252Fup.nii.gz",
        "..%2Fup.nii.gz",
    ]


def test_masks_never_replace_the_data(finished, checkpoint, data):
    def flat(content):
        for split in ("training", "validation", "test"):
            for entry in content[split]:
                shutil.copy(root / "site-1" / entry["image"], root / "site-1" / f"{entry['case']}.nii.gz")
                entry["image"] = f"{entry['case']}.nii.gz"

    root = data("site-2", lambda content: None)
    data("site-1", flat)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="site-1.*is a file of the data; give --save-predictions a folder of its own"):
        evaluate(finished, root, "test", checkpoint, GLOBAL, predictions=root)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_none_and_a_task_without_masks_are_refused(finished, small_phantom, checkpoint, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        PredictionFolder(file, finished.run)
    with pytest.raises(ValueError, match="cannot be written .Not a directory in .*file.; give another --save-pred"):
        evaluate(finished, small_phantom, "test", checkpoint, GLOBAL, predictions=file / "masks")
    classifier = make_run("lora", "images", "vit_tiny", classes=3, initial="random")
    with pytest.raises(ValueError, match="classification run has no masks; evaluation.csv has the probabilities"):
        PredictionFolder(tmp_path / "masks", classifier)

"""A run's model on a folder of sites."""

import csv
import json
import shutil

import pytest

from fedpeft.study.apply.evaluation import evaluate, write_evaluation
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

"""The table of a comparison, from results made by hand."""

import csv
import json

import pytest

from fedpeft.study.results import history, markdown, summary, write_results
from fedpeft.train.evaluate import CaseScore
from fedpeft.train.run_folder import RunFolder

SITES = ("north", "south")


def results(*entries):
    """Results of (method, {model: (Dice at north, Dice at south)})."""
    return {"runs": [
        {"run": {"method": method}, "models": {
            model: {site: {"dice": value} for site, value in zip(SITES, values, strict=True)}
            for model, values in models.items()
        }} for method, models in entries
    ]}


ALL = {
    "before": (0.0, 0.1), "local/north": (0.6, 0.2), "local/south": (0.1, 0.7), "federated": (0.8, 0.9),
    "centralized": (0.7, 0.8),
}
HALF = {model: tuple(value / 2 for value in values) for model, values in ALL.items()}


@pytest.mark.parametrize(("entries", "columns", "rows"), [
    (
        [("a", ALL)],
        ["before", "own model, at home", "own model, all sites", "federated", "centralized"],
        [["a", "north", "0.000", "0.600", "0.400", "0.800", "0.700"],
         ["a", "south", "0.100", "0.700", "0.400", "0.900", "0.800"],
         ["a", "mean of sites", "0.050", "0.650", "0.400", "0.850", "0.750"]],
    ),
    # Two seeds are averaged, two methods are not.
    (
        [("a", ALL), ("a", HALF), ("b", HALF)],
        ["before", "own model, at home", "own model, all sites", "federated", "centralized"],
        [["a", "north", "0.000", "0.450", "0.300", "0.600", "0.525"],
         ["a", "south", "0.075", "0.525", "0.300", "0.675", "0.600"],
         ["a", "mean of sites", "0.038", "0.488", "0.300", "0.637", "0.562"],
         ["b", "north", "0.000", "0.300", "0.200", "0.400", "0.350"],
         ["b", "south", "0.050", "0.350", "0.200", "0.450", "0.400"],
         ["b", "mean of sites", "0.025", "0.325", "0.200", "0.425", "0.375"]],
    ),
    (
        [("a", {"before": (0.0, 0.1), "federated": (0.8, 0.9)})],
        ["before", "federated"],
        [["a", "north", "0.000", "0.800"], ["a", "south", "0.100", "0.900"],
         ["a", "mean of sites", "0.050", "0.850"]],
    ),
])
def test_the_table(entries, columns, rows):
    found_columns, found_rows = summary(results(*entries))
    assert found_columns == ["method", "site", *columns]
    assert [row[:2] for row in found_rows] == [row[:2] for row in rows]
    for found, row in zip(found_rows, rows, strict=True):
        assert [float(cell) for cell in found[2:]] == pytest.approx([float(cell) for cell in row[2:]], abs=0.0011)
        assert all(len(cell) == 5 for cell in found[2:])


def test_markdown():
    text = markdown(["method", "site", "federated"], [["a", "north", "0.800"]])
    assert text == "| method | site | federated |\n| --- | --- | ---: |\n| a | north | 0.800 |\n"


def test_history_is_the_mean_over_classes_then_sites(tmp_path):
    folder = RunFolder(tmp_path)
    for rounds, north in ((0, 0.2), (10, 0.4), (2, 0.3)):
        folder.metrics(rounds, "validation", {"north": {"organ": north, "lesion": 0.0}, "south": {"organ": 0.8}})
    # Means over all values would be 1/3, 0.4 and 0.367.
    assert history(tmp_path) == [[0, pytest.approx(0.45)], [2, pytest.approx(0.475)], [10, pytest.approx(0.5)]]


def test_files_hold_every_case_of_every_model(run, tmp_path):
    scores = {
        (run.method, 0, setting, site): [
            CaseScore(where, "test", "case", label, value) for where in SITES for label, value in given.items()
        ]
        for setting, site, given in (
            ("before", "", {"organ": 0.0, "lesion": 0.0}), ("local", "north", {"organ": 0.5, "lesion": 0.25}),
            ("local", "south", {"organ": 0.75, "lesion": 0.25}), ("centralized", "", {"organ": 1.0, "lesion": 0.5}),
        )
    }
    found = write_results(tmp_path, tmp_path / "data", [run], scores)
    assert found == json.loads((tmp_path / "results.json").read_text())
    models = found["runs"][0]["models"]
    assert list(models) == ["before", "local/north", "local/south", "centralized"]
    assert models["local/north"]["south"] == {"dice": 0.375, "classes": {"organ": 0.5, "lesion": 0.25}, "cases": 1}
    with (tmp_path / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * 2 * 2
    assert rows[4] == {
        "method": "flap_sam", "seed": "0", "model": "local/north", "site": "north", "split": "test", "case": "case",
        "label": "organ", "dice": "0.5",
    }
    with (tmp_path / "table.csv").open() as stream:
        table = list(csv.reader(stream))
    assert table[0] == ["method", "site", "before", "own model, at home", "own model, all sites", "centralized"]
    assert table[-1] == ["flap_sam", "mean of sites", "0.000", "0.438", "0.438", "0.750"]
    assert (tmp_path / "table.md").read_text() == markdown(table[0], table[1:])

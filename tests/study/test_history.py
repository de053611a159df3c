"""Validation curves out of run folders."""

import pytest

from fedpeft.study.results.history import aligned, history, mean_curve
from fedpeft.training.server.run_folder import RunFolder


@pytest.fixture
def folder(run, tmp_path):
    made = RunFolder(tmp_path)
    made.start(run, "federated", "", "")
    return made


def test_history_is_the_mean_over_classes_in_the_order_of_rounds(folder, tmp_path):
    for rounds, south in ((0, 0.2), (10, 0.4), (2, 0.3)):
        folder.metrics(rounds, "validation", {"south": {"organ": south, "lesion": 0.0}, "north": {"organ": 0.8}})
    assert history(tmp_path) == {
        "north": [[0, 0.8], [2, 0.8], [10, 0.8]],
        "south": [[0, pytest.approx(0.1)], [2, pytest.approx(0.15)], [10, pytest.approx(0.2)]],
    }


def test_sites_without_validation_cases_have_no_curve(folder, tmp_path):
    folder.metrics(0, "validation", {"north": {}})
    assert history(tmp_path) == {}


def test_curves_are_compared_where_all_have_a_point():
    curves = [[[0, 0.0], [1, 0.5], [2, 0.6]], [[0, 0.2], [2, 0.8]]]
    assert aligned(curves) == ([0, 2], [[0.0, 0.6], [0.2, 0.8]])
    assert mean_curve(curves) == [[0, pytest.approx(0.1)], [2, pytest.approx(0.7)]]

"""Contrasts of methods: setting by setting, on the same cases."""

import csv

import pytest
from made import scores_of, with_distances

from fedpeft.study.results.contrasts import FILE, contrasts, write_contrasts


@pytest.fixture
def two(run):
    other = run.with_(method="pdec_ft")
    return scores_of(run) | scores_of(run.with_(seed=1)) | scores_of(other, 0.5) | scores_of(other.with_(seed=1), 0.5)


def test_every_pair_in_every_setting_on_the_mean_over_seeds(two):
    found = list(contrasts(two))
    assert [(item["setting"], item["first"], item["second"]) for item in found] == [
        (setting, "flap_sam", "pdec_ft") for setting in ("local", "federated", "centralized")
    ]
    # Federated: cases .8 .6 and .6 .4, the second class half of it, the other method half of all.
    federated = found[1]
    assert federated["difference"] == pytest.approx((0.7 + 0.5) / 2 * 0.75 * 0.5)
    assert federated["low"] <= federated["difference"] <= federated["high"]
    assert federated["low"] > 0


def test_settings_that_only_one_has_and_a_method_alone_give_none(run, tmp_path):
    one = scores_of(run)
    other = scores_of(run.with_(method="pdec_ft"), settings=("initial", "federated"))
    assert [item["setting"] for item in contrasts(one | other)] == ["federated"]
    write_contrasts(one | other, tmp_path)
    with (tmp_path / FILE).open() as stream:
        assert len(list(csv.DictReader(stream))) == 1
    write_contrasts(one, tmp_path)
    assert not (tmp_path / FILE).exists()


def test_further_metrics_have_contrasts_of_their_own(two):
    plain, found = list(contrasts(two)), list(contrasts(with_distances(two)))
    assert [item["metric"] for item in found] == ["dice"] * 3 + ["hd95"] * 3
    assert [{k: v for k, v in item.items() if k != "metric"} for item in found[:3]] == plain
    for dice, distance in zip(plain, found[3:], strict=True):
        assert distance["difference"] == pytest.approx(-100 * dice["difference"], abs=1e-3)
        assert (distance["low"], distance["high"]) == pytest.approx((-100 * dice["high"], -100 * dice["low"]), abs=1e-3)

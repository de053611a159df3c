"""The mean score of a set of cases: over the cases of a class first, then over the classes."""

import json

import pytest

from fedpeft.tasks.registry import find_task
from fedpeft.tasks.scores import PLAIN, CaseScore, Scoring, class_means, mean_score, valued_by


def scores(*values):
    return [CaseScore("site", "test", case, label, value) for case, label, value in values]


def test_means_are_over_cases_then_classes():
    # Three organs, one lesion: the mean over all four would be 0.7.
    found = scores(("a", "organ", 1.0), ("b", "organ", 0.8), ("c", "organ", 0.6), ("a", "lesion", 0.4))
    assert class_means(found) == pytest.approx({"organ": 0.8, "lesion": 0.4})
    assert mean_score(found) == pytest.approx(0.6)


def test_no_case_has_no_mean():
    assert class_means([]) == {}
    with pytest.raises(ValueError, match="empty"):
        mean_score([])


FULL = CaseScore("site", "test", "a", "organ", 0.8, others={"hd95": 4.5, "nsd": 0.9}, empty="label")


def test_further_metrics_are_values_of_their_own():
    assert [item.value for item in valued_by([FULL], "hd95")] == [4.5]
    assert mean_score([FULL]) == 0.8


@pytest.mark.parametrize(
    ("score", "metrics", "expected"),
    [
        (FULL, ("hd95", "nsd"), FULL),
        (FULL, ("nsd",), CaseScore("site", "test", "a", "organ", 0.8, others={"nsd": 0.9}, empty="label")),
        (FULL, (), CaseScore("site", "test", "a", "organ", 0.8)),
        (
            CaseScore("site", "test", "a", "nv", 1.0, (0.25, 0.75)),
            (),
            CaseScore("site", "test", "a", "nv", 1.0, (0.25, 0.75)),
        ),
    ],
)
def test_scores_come_back_from_json_with_the_metrics_that_are_asked_for(score, metrics, expected):
    assert CaseScore.from_dict(json.loads(json.dumps(score.to_dict())), metrics) == expected


def test_a_score_without_further_metrics_is_written_as_before_there_were_any():
    assert list(CaseScore("site", "test", "a", "organ", 0.8).to_dict()) == [
        "site",
        "split",
        "case",
        "label",
        "value",
        "probabilities",
    ]
    assert PLAIN.to_dict() == {}


@pytest.mark.parametrize(
    ("asked", "computed", "expected"),
    [
        (PLAIN, {}, True),
        (PLAIN, Scoring(("hd95",)).to_dict(), True),
        (Scoring(("hd95",)), {}, False),
        (Scoring(("hd95",)), Scoring(("hd95", "nsd"), 2.0).to_dict(), True),
        (Scoring(("nsd",), 1.0), Scoring(("hd95", "nsd"), 2.0).to_dict(), False),
        (Scoring(("nsd",), 2.0), Scoring(("hd95", "nsd"), 2.0).to_dict(), True),
        (Scoring(("hd95", "assd")), Scoring(("hd95",)).to_dict(), False),
    ],
)
def test_scores_serve_again_if_they_have_what_is_asked_for(asked, computed, expected):
    assert asked.within(json.loads(json.dumps(computed))) is expected


@pytest.mark.parametrize(
    ("metrics", "tolerance", "expected"),
    [
        ((), None, PLAIN),
        (("dice",), None, PLAIN),
        (("hd95",), None, Scoring(("hd95",))),
        (("nsd", "dice", "hd95", "nsd"), None, Scoring(("hd95", "nsd"), 2.0)),
        (("nsd",), 0.5, Scoring(("nsd",), 0.5)),
    ],
)
def test_metrics_by_name_are_in_one_order_whatever_was_written(metrics, tolerance, expected):
    assert find_task("segmentation").scoring(metrics, tolerance) == expected


@pytest.mark.parametrize(
    ("task", "metrics", "tolerance", "part"),
    [
        ("segmentation", ("iou",), None, "segmentation has no metric 'iou', only dice, hd95, assd, nsd"),
        ("segmentation", (), 1.0, "--nsd-tolerance 1 has no effect without nsd"),
        ("segmentation", ("hd95",), 1.0, "no effect without nsd"),
        ("segmentation", ("nsd",), 0.0, "--nsd-tolerance is 0, expected a length above 0"),
        ("segmentation", ("nsd",), float("nan"), "expected a length above 0"),
        ("segmentation", ("nsd",), float("inf"), "expected a length above 0"),
        (
            "classification",
            ("hd95",),
            None,
            "classification has no metric 'hd95', only balanced_accuracy, accuracy, macro_f1, auroc; it reports them "
            "always, leave --metrics out",
        ),
        ("classification", ("dice",), None, "no metric 'dice'"),
        ("classification", (), 2.0, "no effect"),
    ],
)
def test_what_a_task_does_not_have_is_refused(task, metrics, tolerance, part):
    with pytest.raises(ValueError, match=part.replace("(", ".").replace(")", ".")):
        find_task(task).scoring(metrics, tolerance)

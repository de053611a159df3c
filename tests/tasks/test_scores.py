"""The mean score of a set of cases: over the cases of a class first, then over the classes."""

import pytest

from fedpeft.tasks.scores import CaseScore, class_means, mean_score


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

"""The best validated model, and when a run ends without its last rounds."""

import pytest

from fedpeft.config.run import make_run
from fedpeft.training.server.selection import Best, better, exhausted, scores_of


@pytest.mark.parametrize(
    ("patience", "means", "stops_after"),
    [
        (0, [0.5, 0.4, 0.3, 0.2], None),
        (2, [0.5, 0.4, 0.3, 0.2], 2),
        (2, [0.5, 0.4, 0.6, 0.6, 0.6], 4),
        (1, [0.1, 0.2, 0.3], None),
        (1, [None, None, None], None),
    ],
)
def test_a_run_ends_when_nothing_better_came(patience, means, stops_after):
    best, stopped = None, None
    for round_, mean in enumerate(means):
        best = better(best, round_, {"s": {} if mean is None else {"a": mean}})
        if exhausted(best, round_, patience) and stopped is None:
            stopped = round_
    assert stopped == stops_after
    known = [mean for mean in means if mean is not None]
    assert best == (Best(means.index(max(known)), max(known)) if known else None)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"a": {"organ": 0.2, "lesion": 0.6}, "b": {"organ": 0.8}}, 0.6),
        ({"a": {"organ": 0.2}, "b": {}}, 0.2),
        ({"a": {"organ": 0.0}}, 0.0),
    ],
)
def test_sites_count_alike_whatever_classes_they_have(scores, expected):
    assert better(None, 3, scores) == Best(3, pytest.approx(expected))


def test_scores_are_found_under_the_name_of_the_task():
    run = make_run("flap_sam", "phantom", "sam_tiny", classes=2)
    reports = {"a": {"cases": 3, "loss": 0.5, "dice": {"organ": 0.5}}, "b": {"cases": 1, "loss": 0.5}}
    assert scores_of(run, reports) == {"a": {"organ": 0.5}, "b": {}}

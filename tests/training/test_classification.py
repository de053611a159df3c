"""Classification in the one loop: loss, scores, measures, selection, and the end of a run that no longer improves."""

import numpy as np
import pytest
import torch

from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_site
from fedpeft.tasks.classification import class_weights, make_loss, read, score
from fedpeft.tasks.measures import measures
from fedpeft.tasks.scores import CaseScore, class_means, mean_score
from fedpeft.training.server.alone import train_alone
from fedpeft.training.server.run_folder import BEST, METRICS, RunFolder
from fedpeft.training.server.selection import Selection

RUN = make_run(
    "lora", "images", "vit_tiny", classes=3, rounds=4, image_size=32, batch=4, initial="random", learning_rate=5e-3
)
LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def photos(small_pictures):
    return read_site(small_pictures / "site-1")


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    return train_alone(RUN, photos, None, tmp_path_factory.mktemp("alone") / "run", "local", lambda record: None)


def test_colours_are_learnt_and_the_folder_says_recall(trained):
    lines = (trained.path / METRICS).read_text().splitlines()
    assert lines[0] == "rounds,site,split,label,recall"
    assert len(lines) == 1 + 5 * 3
    assert trained.description["checkpoint"]["sha256"] == "random"
    assert trained.description["best"]["validation_balanced_accuracy"] > 0.5
    losses = [record["sites"]["site-1"]["loss"] for record in trained.rounds()]
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_weights(trained, photos, tmp_path):
    again = train_alone(RUN, photos, None, tmp_path / "run", "local", lambda record: None)
    assert all(torch.equal(value, again.tensors()[key]) for key, value in trained.tensors().items())


def test_scores_are_of_the_true_class_with_all_probabilities(trained, photos):
    scores = score(trained.model(None), read(photos, "test", RUN), RUN, photos.labels, ("site-1", "test"))
    assert [item.label for item in scores] == [photos.labels[case.target] for case in photos.splits["test"]]
    for item in scores:
        assert sum(item.probabilities) == pytest.approx(1, abs=1e-5)
        found = photos.labels[int(np.argmax(item.probabilities))]
        assert item.value == (found == item.label)


def test_an_empty_split_has_no_score(trained, photos):
    empty = read(type(photos)("x", photos.root, photos.labels, {"validation": ()}), "validation", RUN)
    assert score(trained.model(None), empty, RUN, photos.labels, ("x", "validation")) == []


def scores_of(truth, probabilities):
    rows = zip(truth, probabilities, strict=True)
    return [
        CaseScore("s", "test", str(index), LABELS[label], float(np.argmax(row) == label), tuple(row))
        for index, (label, row) in enumerate(rows)
    ]


def test_measures_by_hand():
    rows = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1]]
    scores = scores_of([0, 0, 0, 1, 1], rows)
    assert class_means(scores) == {"a": pytest.approx(2 / 3), "b": 0.5}
    assert mean_score(scores) == pytest.approx(7 / 12)
    found = measures(scores, LABELS)
    assert found["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert found["accuracy"] == 0.6
    # F1 of a: 2 * 2 / (3 + 3); of b: 2 * 1 / (2 + 2); c does not occur.
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # a: pairs (positive, negative) in order: .8 and .6 beat both, .2 neither; b: .6 beats two of three, .4 two.
    assert found["auroc"] == pytest.approx((4 / 6 + 4 / 6) / 2)


def test_one_class_alone_has_no_auroc():
    assert measures(scores_of([1, 1], [[0.1, 0.8, 0.1], [0.7, 0.2, 0.1]]), LABELS)["auroc"] is None


def test_nothing_scored_is_an_error():
    with pytest.raises(ValueError, match="no case was scored"):
        measures([], LABELS)


def test_every_class_that_occurs_weighs_the_same():
    counts = torch.tensor([8, 2, 0, 10])
    weights = class_weights(counts)
    assert (weights * counts)[counts > 0].tolist() == pytest.approx([20 / 3] * 3)
    assert weights[2] == 1 and weights.isfinite().all()


@pytest.mark.parametrize("loss", ["balanced", "plain", "focal"])
def test_losses_of_even_classes(loss):
    """With even counts balanced and plain agree; focal is cross-entropy times (1 - p)^2."""

    class Data:
        counts = torch.tensor([5, 5, 5])

    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1, 2, 0, 1, 2])
    chosen = logits.log_softmax(dim=1)[torch.arange(6), classes]
    expected = {"balanced": -chosen, "plain": -chosen, "focal": -chosen * (1 - chosen.exp()) ** 2}[loss]
    found = make_loss(RUN.with_(loss=loss), Data())(logits, classes)
    # MONAI's focal loss is a mean over classes as well as cases.
    assert found == pytest.approx(float(expected.mean()) / (3 if loss == "focal" else 1), rel=1e-5)


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "run")
    made.start(RUN, "local", "", "")
    return made


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
def test_a_run_ends_when_nothing_better_came(folder, patience, means, stops_after):
    selection = Selection(folder, patience)
    stopped = None
    for round_, mean in enumerate(means):
        selection.validated(round_, {"s": {} if mean is None else {"a": mean}}, {"x": torch.tensor([float(round_)])})
        if selection.exhausted and stopped is None:
            stopped = round_
    assert stopped == stops_after
    known = [mean for mean in means if mean is not None]
    if known:
        assert folder.description["best"] == {
            "rounds": means.index(max(known)),
            "validation_balanced_accuracy": max(known),
        }


def test_patience_ends_a_real_run_early_and_keeps_the_best(photos, tmp_path):
    run = RUN.with_(rounds=40, patience=2)
    found = train_alone(run, photos, None, tmp_path / "run", "local", lambda record: None)
    done, best = found.description["rounds_done"], found.description["best"]["rounds"]
    assert found.description["status"] == "finished"
    # The round that told is trained as well, as in a federation.
    assert done == best + 3 < 40
    assert len((found.path / METRICS).read_text().splitlines()) == 1 + 3 * (done + 1)
    assert found.tensors(BEST).keys() == found.tensors().keys()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"classes": 2, "labels": ()}, "expects 2 classes;"),
        ({"labels": ("x", "y", "z")}, "same class"),
    ],
)
def test_labels_that_do_not_fit_are_refused(photos, tmp_path, changes, word):
    with pytest.raises(ValueError, match=word):
        train_alone(RUN.with_(**changes), photos, None, tmp_path / "run", "local", lambda record: None)


def test_a_site_of_another_task_is_refused(site, tmp_path):
    with pytest.raises(ValueError, match="is for segmentation, the run is classification"):
        train_alone(RUN, site, None, tmp_path / "run", "local", lambda record: None)

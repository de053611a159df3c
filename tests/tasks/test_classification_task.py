"""Classification: scores of cases, measures of a set of cases, losses, and the prediction of one file."""

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from fedpeft.config.datasets import Preprocessing
from fedpeft.config.sections import Training
from fedpeft.models.initial import build
from fedpeft.tasks.classification import LOSSES, ClassificationTask, class_weights
from fedpeft.tasks.measures import measures
from fedpeft.tasks.scores import CaseScore, class_means, mean_score

LABELS = ["a", "b", "c"]
TASK = ClassificationTask()
# Of volumes alone; images have none.
PREPROCESSING = Preprocessing()


@pytest.fixture(scope="module")
def model(classifying):
    return build(classifying, None).train()


def test_scores_are_of_the_true_class_with_all_probabilities(model, classifying, photos):
    cases = TASK.read(classifying, photos, "test", PREPROCESSING)
    scores = TASK.score(model, cases, classifying, photos.labels, ("site-1", "test"))
    assert [item.label for item in scores] == [photos.labels[case.target] for case in photos.splits["test"]]
    for item in scores:
        assert sum(item.probabilities) == pytest.approx(1, abs=1e-5)
        found = photos.labels[int(np.argmax(item.probabilities))]
        assert item.value == (found == item.label)


def test_an_empty_split_has_no_score(model, classifying, photos):
    site = replace(photos, splits={"validation": ()})
    assert TASK.score_site(model, site, "validation", classifying, PREPROCESSING) == []


def scores_of(truth, probabilities):
    pairs = zip(truth, probabilities, strict=True)
    return [
        CaseScore("s", "test", str(index), LABELS[label], float(np.argmax(values) == label), tuple(values))
        for index, (label, values) in enumerate(pairs)
    ]


def test_measures_by_hand():
    probabilities = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1]]
    scores = scores_of([0, 0, 0, 1, 1], probabilities)
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
def test_losses_of_even_classes(classifying, loss):
    """With even counts balanced and plain agree; focal is cross-entropy times (1 - p)^2."""

    class Data:
        counts = torch.tensor([5, 5, 5])

    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1, 2, 0, 1, 2])
    chosen = logits.log_softmax(dim=1)[torch.arange(6), classes]
    expected = {"balanced": -chosen, "plain": -chosen, "focal": -chosen * (1 - chosen.exp()) ** 2}[loss]
    found = TASK.loss(classifying.with_(loss=loss), Data())(logits, classes)
    # MONAI's focal loss is a mean over classes as well as cases.
    assert found == pytest.approx(float(expected.mean()) / (3 if loss == "focal" else 1), rel=1e-5)


def test_the_mode_of_the_model_comes_back(model, classifying, photos):
    TASK.score_site(model, photos, "validation", classifying, PREPROCESSING)
    assert model.training


def test_a_case_without_class_is_named(model, classifying, photos):
    first, *others = photos.splits["test"]
    site = replace(photos, splits={"test": (replace(first, target=None), *others)})
    with pytest.raises(ValueError, match=f"site-1: case {first.case} has no label"):
        TASK.score_site(model, site, "test", classifying, PREPROCESSING)


def test_a_file_gets_the_most_probable_class_and_the_probabilities_of_all(model, classifying, photos, tmp_path):
    case = photos.splits["test"][0]
    run = classifying.with_(labels=tuple(photos.labels.values()))
    written = TASK.predict(model.eval(), case.image, run, PREPROCESSING).write(tmp_path / "found.json")
    model.train()
    assert json.loads((tmp_path / "found.json").read_text()) == written.values
    probabilities = written.values["probabilities"]
    assert list(probabilities) == list(photos.labels.values()) and sum(probabilities.values()) == pytest.approx(1)
    assert written.values["class"] == max(probabilities, key=probabilities.get)
    assert written.values["class"] in written.sentence


def test_every_loss_that_a_run_may_name_is_there():

    assert set(LOSSES) == set(get_args(Training.model_fields["loss"].annotation))

"""Classification in the one loop: training, selection, and the end of a run that no longer improves."""

import pytest
import torch

from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_site
from fedpeft.training.server.in_process import train_in_process
from fedpeft.training.server.run_folder import BEST, METRICS

RUN = make_run(
    "lora", "images", "vit_tiny", classes=3, rounds=4, image_size=32, batch=4, initial="random", learning_rate=5e-3
)


@pytest.fixture(scope="module")
def photos(small_images):
    return read_site(small_images / "site-1")


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    return train_in_process(RUN, [photos], None, tmp_path_factory.mktemp("alone") / "run", "local")


def test_colours_are_learnt_and_the_folder_says_recall(trained):
    lines = (trained.path / METRICS).read_text().splitlines()
    assert lines[0] == "rounds,site,split,label,recall"
    assert len(lines) == 1 + 5 * 3
    assert trained.description["checkpoint"]["sha256"] == "random"
    assert trained.description["best"]["validation_balanced_accuracy"] > 0.5
    losses = [record["sites"]["site-1"]["loss"] for record in trained.rounds()]
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_weights(trained, photos, tmp_path):
    again = train_in_process(RUN, [photos], None, tmp_path / "run", "local")
    assert all(torch.equal(value, again.tensors()[key]) for key, value in trained.tensors().items())


def test_patience_ends_a_real_run_early_and_keeps_the_best(photos, tmp_path):
    run = RUN.with_(rounds=40, patience=2)
    found = train_in_process(run, [photos], None, tmp_path / "run", "local")
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
        train_in_process(RUN.with_(**changes), [photos], None, tmp_path / "run", "local")


def test_a_site_of_another_task_is_refused(site, tmp_path):
    with pytest.raises(ValueError, match="is for segmentation, the run is classification"):
        train_in_process(RUN, [site], None, tmp_path / "run", "local")

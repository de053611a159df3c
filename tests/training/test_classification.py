"""Classification in the one loop: training, selection, and the end of a run that no longer improves."""

import pytest
import torch

from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_site
from fedpeft.training.server.alone import train_alone
from fedpeft.training.server.run_folder import BEST, METRICS, RunFolder
from fedpeft.training.server.selection import Selection

RUN = make_run(
    "lora", "images", "vit_tiny", classes=3, rounds=4, image_size=32, batch=4, initial="random", learning_rate=5e-3
)


@pytest.fixture(scope="module")
def photos(small_images):
    return read_site(small_images / "site-1")


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

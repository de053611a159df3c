"""One site's round: determined by its seed and name, frozen tensors untouched, nothing kept of an aborted one."""

from dataclasses import replace

import nibabel
import pytest
import torch

from fedpeft.common.devices import usable
from fedpeft.models.initial import build
from fedpeft.models.payload import payload, trainable
from fedpeft.tasks.types import Stopped
from fedpeft.training.client.trainer import SiteTrainer


@pytest.fixture
def trainer(run, site, checkpoint, tmp_path):
    """A function that makes a trainer with the initial model and a state of its own, or the named one."""

    def made(state="state", site=site, should_stop=lambda: False, **changes):
        here = run.with_(**changes)
        return SiteTrainer(here, site, build(here, checkpoint), tmp_path / state, should_stop=should_stop)

    return made


def received(trainer):
    return {key: p.detach().clone() for key, p in trainable(trainer.model).items()}


def equal(mine, theirs):
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def two_rounds(trainer):
    base = received(trainer)
    updates = []
    for round_ in range(2):
        updates.append(trainer.train(base, round_))
        base = {key: base[key] + updates[-1].tensors[key] for key in base}
    return updates


def test_the_same_seed_gives_the_same_update_bit_for_bit(trainer):
    for mine, theirs in zip(two_rounds(trainer("one")), two_rounds(trainer("two")), strict=True):
        assert equal(mine.tensors, theirs.tensors)
        assert mine.loss == theirs.loss


@pytest.mark.parametrize(("name", "seed", "round_"), [("elsewhere", 0, 0), ("site-1", 1, 0), ("site-1", 0, 1)])
def test_another_name_seed_or_round_has_other_batches(trainer, site, name, seed, round_):
    # With steps of next to nothing the losses differ by the batches alone.
    first = trainer("one", learning_rate=1e-20)
    base = received(first)
    other = trainer("two", site=replace(site, name=name), seed=seed, learning_rate=1e-20)
    same = trainer("three", learning_rate=1e-20)
    loss = first.train(base, 0).loss
    assert same.train(base, 0).loss == loss
    assert abs(other.train(base, round_).loss - loss) > 1e-5


def test_the_update_is_the_declared_payload_and_everything_moved(trainer, run, site):
    mine = trainer()
    base = received(mine)
    update = mine.train(base, 0)
    assert {key: tuple(tensor.shape) for key, tensor in update.tensors.items()} == payload(run)
    assert all(t.dtype == torch.float32 and t.isfinite().all() and t.any() for t in update.tensors.values())
    after = received(mine)
    assert all(torch.equal(update.tensors[key], after[key] - base[key]) for key in base)
    assert update.cases == len(site.splits["training"]) == 2
    assert update.loss > 0 and update.seconds > 0


def test_the_report_counts_cases_and_their_slices(trainer, site):
    mine = trainer()
    slices = sum(nibabel.load(case.image).shape[2] for case in site.splits["training"])
    report = mine.train(received(mine), 0).report
    assert (report["cases"], report["slices"]) == (2, slices) and slices > 2
    assert report.keys() == {"cases", "slices", "loss", "seconds"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_site_counts_its_own_steps_over_all_rounds(trainer, site, count, monkeypatch):
    """Two sites with different numbers of cases: each has the rate of its own step, in every round."""
    cases = site.splits["training"][:count]
    fields = {"warmup_steps": 3, "decay_epochs": 5.0, "lr_schedule": "power7", "learning_rate": 1e-3, "batch": 1}
    mine = trainer(site=replace(site, splits=site.splits | {"training": cases}), **fields)
    steps, seen = mine._data.steps(), []

    def rates_alone(model, optimiser, loss, batches, learning_rate_at, should_stop, precision):
        seen.extend(learning_rate_at(index) for index, _ in enumerate(batches))
        return [0.5]

    monkeypatch.setattr("fedpeft.training.client.trainer.train_epoch", rates_alone)
    base = received(mine)
    for round_ in range(2):
        mine.train(base, round_)
    expected = [1e-3 / 3, 1e-3 / 3, 1e-3 * (2 / 3), 1e-3]
    expected += [1e-3 * (1 - step / (5 * steps)) ** 7 for step in range(2 * steps - 4)]
    assert steps > 3 and seen == pytest.approx(expected, rel=1e-14)


def test_frozen_tensors_are_bit_identical_after_a_round(trainer):
    mine = trainer()
    before = {key: tensor.clone() for key, tensor in mine.model.state_dict().items()}
    mine.train(received(mine), 0)
    after = mine.model.state_dict()
    assert {key for key in before if not torch.equal(before[key], after[key])} == set(mine.parameters)
    assert len(mine.parameters) < len(before)


def test_a_round_trained_again_gives_the_same_update(trainer):
    mine = trainer(rounds=3)
    base = received(mine)
    updates = [mine.train(base, round_) for round_ in (0, 1, 1, 2, 2)]
    assert equal(updates[1].tensors, updates[2].tensors)
    assert equal(updates[3].tensors, updates[4].tensors)
    assert not equal(updates[0].tensors, updates[1].tensors)


def test_moments_of_the_round_before_are_used(trainer):
    mine, fresh = trainer("one", rounds=3), trainer("two", rounds=3)
    base = received(mine)
    mine.train(base, 0)
    assert not equal(mine.train(base, 1).tensors, fresh.train(base, 1).tensors)


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ({0: "background", 1: "organ"}, "expects 2 classes"),
        ({0: "background", 1: "organ", 2: "lesion", 3: "cyst"}, "'cyst'.*expects 2 classes"),
        ({0: "background", 1: "lesion", 2: "organ"}, "same class"),
    ],
)
def test_labels_that_do_not_fit_are_refused(trainer, site, labels, part):
    with pytest.raises(ValueError, match=f"site-1.*{part}"):
        trainer(site=replace(site, labels=labels))


def test_a_site_without_training_case_is_refused(trainer, site):
    with pytest.raises(ValueError, match="site-1: no case for training"):
        trainer(site=replace(site, splits=site.splits | {"training": ()}))


@pytest.mark.parametrize("split", ["training", "validation"])
def test_a_case_without_label_is_refused_by_name(trainer, site, split):
    first = site.splits[split][0]
    splits = site.splits | {split: (replace(first, label=None), *site.splits[split][1:])}
    with pytest.raises(ValueError, match=f"site-1.*{first.case} has no label"):
        trainer(site=replace(site, splits=splits))


def test_a_site_without_validation_case_trains_and_has_no_score(trainer, site):
    mine = trainer(site=replace(site, splits=site.splits | {"validation": ()}))
    assert mine.validate(received(mine), 0) == []
    assert mine.train(received(mine), 0).loss > 0


def test_an_aborted_round_stops_within_a_step_and_keeps_nothing(trainer, tmp_path):
    asked = []
    stop_at = [None]

    def should_stop():
        asked.append(0)
        return stop_at[0] is not None and len(asked) >= stop_at[0]

    mine = trainer(should_stop=should_stop, batch=1)
    base = received(mine)
    mine.train(base, 0)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    asked.clear()
    stop_at[0] = 3
    with pytest.raises(Stopped, match="before step 2"):
        mine.train(base, 1)
    assert len(asked) == 3
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    stop_at[0] = None
    # The round that is trained again is the one that would have been.
    expected = trainer("undisturbed", batch=1)
    expected.train(base, 0)
    assert equal(mine.train(base, 1).tensors, expected.train(base, 1).tensors)


def test_validation_scores_every_class_of_every_case_and_changes_nothing(trainer, site):
    mine = trainer()
    base = received(mine)
    scores = mine.validate(base, 0)
    cases = [case.case for case in site.splits["validation"]]
    assert [(s.case, s.label) for s in scores] == [(case, label) for case in cases for label in ("organ", "lesion")]
    assert all(0 <= s.value <= 1 and (s.site, s.split) == ("site-1", "validation") for s in scores)
    assert equal(received(mine), base)
    assert mine.model.training


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what is asked for")
def test_a_device_that_is_not_there_is_refused(trainer):
    with pytest.raises(RuntimeError, match="cuda:0"):
        usable("cuda:0")


def test_dropout_is_the_sites_own_and_leaves_torchs_generator_alone(trainer):
    """MA-SAM drops; the same seed, site and round must drop the same, whatever was drawn before."""
    changes = {"method": "ma_sam", "rounds": 1}
    torch.manual_seed(1)
    first = trainer("one", **changes)
    update = first.train(received(first), 0)
    torch.manual_seed(2)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    second = trainer("two", **changes)
    again = second.train(received(second), 0)
    assert equal(update.tensors, again.tensors)
    assert torch.equal(torch.rand(1), drawn)

"""The estimate of what is left, with a clock that the test turns."""

import pytest

from fedpeft.study.plan.experiments import Experiment
from fedpeft.study.run.progress import Progress


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def made(run):
    """Makes a progress of 10-round experiments; returns it, its clock, its events, the experiments by setting."""

    def make(*settings, workers=2, methods=("flap_sam",)):
        runs = [run.with_(rounds=10, method=method) for method in methods]
        experiments = [Experiment(one, *setting.split("/")) for one in runs for setting in settings]
        clock, events = Clock(), []
        progress = Progress(experiments, workers, lambda _, event: events.append(event), clock)
        return progress, clock, events, experiments

    return make


def test_nothing_is_known_before_the_first_round(made):
    progress, clock, events, (experiment, _) = made("local/a", "local/b")
    clock.now += 5
    progress.advanced(experiment, 0)
    assert progress.left() is None
    assert progress.line() == "0/2 experiments, 0:00:05 gone, time left not known yet"
    assert progress.running() == "flap_sam, seed 0, local a 0/10"
    assert events == ["flap_sam, seed 0, local a: begins"]


def test_a_running_experiment_is_projected_from_its_rounds_and_its_first_counts_once(made):
    progress, clock, events, (experiment,) = made("federated")
    progress.advanced(experiment, 0)
    clock.now += 30
    progress.advanced(experiment, 1)
    assert progress.left() == pytest.approx(30 * 10 - 30)
    # The first round had the start in it: the others take 4 s each.
    for rounds in (2, 3):
        clock.now += 4
        progress.advanced(experiment, rounds)
    assert progress.left() == pytest.approx(7 * 4)
    clock.now += 1
    assert progress.left() == pytest.approx(27)
    assert events[-1] == "flap_sam, seed 0, federated: round 3 of 10"
    assert progress.running() == "flap_sam, seed 0, federated 3/10"
    clock.now += 100
    assert progress.left() == 0


def test_experiments_that_run_side_by_side_share_the_time(made):
    progress, clock, _, experiments = made("local/a", "local/b", "local/c", "local/d", workers=2)
    progress.advanced(experiments[0], 0)
    clock.now += 10
    progress.finished(experiments[0], 10)
    assert progress.left() == pytest.approx(3 * 10 / 2)
    progress.kept({experiments[1]: None, experiments[2]: 20.0})
    # One is left and cannot be shared; it is expected to take the mean of the known ones.
    assert progress.left() == pytest.approx(15)


def test_federated_experiments_run_one_after_the_other(made):
    progress, clock, _, experiments = made("federated", methods=("flap_sam", "pdec_ft", "dec_ft"), workers=8)
    progress.kept({experiments[0]: 60.0})
    assert progress.left() == pytest.approx(120)


def test_the_nearest_relatives_tell_what_to_expect(made):
    progress, _, _, experiments = made(
        "initial", "local/a", "local/b", "centralized", methods=("flap_sam", "full_ft"), workers=1
    )
    flap, full = experiments[:4], experiments[4:]
    progress.kept({flap[0]: 1.0, flap[1]: 10.0, flap[3]: 50.0, full[1]: 30.0})
    # flap_sam local b as a; full_ft: initial as flap_sam's, local b as a, centralized as flap_sam's.
    assert progress.left() == pytest.approx(10 + 1 + 30 + 50)


def test_else_the_average_of_all_trainings_is_expected(made):
    progress, _, _, experiments = made("initial", "local/a", "federated", workers=1)
    progress.kept({experiments[0]: 1.0, experiments[1]: 40.0})
    # An initial model is only tested: its second says nothing of a training.
    assert progress.left() == pytest.approx(40)


def test_the_end(made):
    progress, clock, events, (one, two) = made("local/a", "local/b")
    for experiment in (one, two):
        progress.advanced(experiment, 0)
        progress.advanced(experiment, 10)
    clock.now += 3725
    progress.finished(one, 12.4)
    progress.failed(two, ValueError("image.nii.gz is damaged"))
    # News that a worker sent before its result may arrive after it.
    progress.advanced(one, 10)
    assert progress.line() == "2/2 experiments, 1:02:05 gone, about 0:00:00 left"
    assert progress.running() == ""
    assert events[-2:] == [
        "flap_sam, seed 0, local a: finished in 12 s",
        "flap_sam, seed 0, local b: failed: image.nii.gz is damaged",
    ]

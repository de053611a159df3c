"""The learning rate over a run: a warm-up, then one of the schedules."""

from math import cos, pi
from typing import get_args

import pytest
from toy_parameters import RUN

from fedpeft.config.presets import RECIPES
from fedpeft.config.sections import Training
from fedpeft.training.engine.schedule import SCHEDULES, learning_rate_at, learning_rate_of


@pytest.mark.parametrize(
    ("warmup", "progress", "share"),
    [
        (0.2, 0, 0),
        (0.2, 0.05, 0.25),
        (0.2, 0.2, 1),
        (0.2, 0.6, 0.5),
        (0.2, 1, 0),
        (0, 0, 1),
        (0, 0.5, 0.5),
        (0, 1, 0),
    ],
)
def test_the_learning_rate_warms_up_to_the_peak_and_ends_at_zero(warmup, progress, share):
    run = RUN.with_(warmup=warmup)
    assert learning_rate_at(run, progress) == pytest.approx(share * run.training.learning_rate, abs=1e-15)


def test_every_schedule_that_a_run_may_name_is_there():
    assert set(SCHEDULES) == set(get_args(Training.model_fields["lr_schedule"].annotation))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
def test_a_schedule_falls_from_one_to_zero(name, warmup):
    shares = [SCHEDULES[name](warmup + (1 - warmup) * index / 20, warmup) for index in range(21)]
    assert shares[0] == pytest.approx(1) and shares[-1] == pytest.approx(0, abs=1e-12)
    assert shares == sorted(shares, reverse=True)


def set_after_each_step(peak, warmup, horizon, power, steps):
    """The rates of a training that begins with a share of the peak and sets its rate after each step, for the next."""
    rates, now = [], peak / warmup if warmup else peak
    for done in range(steps):
        rates.append(now)
        if warmup and done < warmup:
            now = peak * ((done + 1) / warmup)
        else:
            now = peak * (1.0 - (done - warmup) / horizon) ** power
    return rates


def rates(run, rounds, round_steps, epoch_steps):
    return [
        learning_rate_of(run, round_, index, round_steps, epoch_steps)
        for round_ in range(rounds)
        for index in range(round_steps)
    ]


# FLAP-SAM's code at several numbers of steps in an epoch, MA-SAM's and SAMed's.
@pytest.mark.parametrize(
    ("recipe", "power", "epochs", "steps"),
    [
        ("authors", 7, 200, 30),
        ("authors", 7, 200, 4),
        ("authors", 7, 200, 1),
        ("paper", 7, 200, 13),
        ("ma_sam", 7, 400, 11),
        ("samed", 0.9, 200, 93),
        ("samed_h", 7, 400, 93),
    ],
)
def test_the_published_recipes_have_the_rates_of_their_code_to_the_last_digit(recipe, power, epochs, steps):
    fields = dict(RECIPES[recipe].fields)
    run = RUN.with_(**fields | {"site_weighting": "uniform"})
    expected = set_after_each_step(fields["learning_rate"], 250, epochs * steps, power, 100 * steps)
    assert rates(run, 100, steps, steps) == expected


def test_the_authors_rates_at_the_start_of_an_epoch_of_30_steps():
    run = RUN.with_(**RECIPES["authors"].fields | {"site_weighting": "uniform"})
    found = [learning_rate_of(run, epoch, 0, 30, 30) for epoch in (10, 25, 50, 75, 99)]
    assert [float(f"{rate:.1e}") for rate in found] == [7.6e-4, 4.4e-4, 1.6e-4, 4.7e-5, 1.2e-5]


@pytest.mark.parametrize("warmup", [0, 1, 7, 100])
def test_any_warm_up_in_steps_follows_the_same_rule(warmup):
    run = RUN.with_(warmup_steps=warmup, decay_epochs=3.5, lr_schedule="power7", learning_rate=3e-3)
    expected = set_after_each_step(3e-3, warmup, 3.5 * 10, 7, min(warmup + 35, 120))
    assert rates(run, 12, 10, 10)[: len(expected)] == pytest.approx(expected, rel=1e-15)
    # Beyond the horizon nothing trains.
    assert set(rates(run, 40, 10, 10)[warmup + 36 :]) == {0.0}


def test_a_round_of_part_of_an_epoch_counts_its_own_steps():
    run = RUN.with_(warmup_steps=5, decay_epochs=4.0, lr_schedule="poly", learning_rate=1.0)
    # Half an epoch of 9 steps is 5 steps; the horizon is 4 epochs of 9.
    assert rates(run, 8, 5, 9) == set_after_each_step(1.0, 5, 36, 0.9, 40)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("fields", "first", "last"),
    [
        # A warm-up in steps alone: the schedule ends with the run's last step.
        ({"warmup_steps": 10}, 10, 100),
        # A horizon alone: the warm-up is the usual share of the run.
        ({"decay_epochs": 2.0, "warmup": 0.2}, 20, 40),
    ],
)
def test_either_field_works_without_the_other_on_every_schedule(name, fields, first, last):
    run = RUN.with_(**{"rounds": 10, "lr_schedule": name, "learning_rate": 1.0} | fields)
    found = rates(run, 10, 10, 10)
    assert found[:2] == [1 / first, 1 / first] and found[first] == found[first + 1] == 1
    assert found[: first + 1] == sorted(found[: first + 1])
    assert found[first + 1 :] == sorted(found[first + 1 :], reverse=True)
    assert 0 < found[last - 1] < 0.2 and all(rate == 0 for rate in found[last + 1 :])


@pytest.mark.parametrize("name", ["cosine", "power7"])
@pytest.mark.parametrize("warmup", [0.05, 0.0])
def test_without_either_field_the_rate_follows_the_progress_bit_for_bit(name, warmup):
    """The formula of version 0.2.0 before it knew steps, written out."""
    run = RUN.with_(rounds=7, lr_schedule=name, warmup=warmup)

    def formula(progress):
        if progress < warmup:
            return run.training.learning_rate * progress / warmup
        falling = 0.5 * (1 + cos(pi * (progress - warmup) / (1 - warmup)))
        return run.training.learning_rate * (falling if name == "cosine" else ((1 - progress) / (1 - warmup)) ** 7)

    expected = [formula((round_ + (index + 0.5) / 6) / 7) for round_ in range(7) for index in range(6)]
    assert rates(run, 7, 6, 11) == expected

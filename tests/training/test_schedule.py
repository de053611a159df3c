"""The learning rate over a run: a warm-up, then one of the schedules."""

from typing import get_args

import pytest
from toy_parameters import RUN

from fedpeft.config.sections import Training
from fedpeft.training.engine.schedule import SCHEDULES, learning_rate_at


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

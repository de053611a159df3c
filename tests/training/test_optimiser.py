"""Moments survive a round on disk, turn with the factors, and a round trained again starts from the state before it."""

import subprocess
import sys

import pytest
import torch

from fedpeft.config.run import make_run
from fedpeft.models.initial import build
from fedpeft.models.payload import trainable
from fedpeft.training.engine.optimiser import OptimiserState, StateFolder, learning_rate_at, make_optimiser

RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, image_size=32)
SHAPES = {"head.weight": (3, 4), "head.bias": (3,), "m.lora.A": (2, 7), "m.lora.B": (6, 2)}


def toy(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.nn.Parameter(torch.randn(shape, generator=generator)) for key, shape in SHAPES.items()}


def steps(optimiser, parameters, numbers):
    """Optimiser steps with gradients that depend on the step's number, a parameter's place and its value."""
    for number in numbers:
        for place, parameter in enumerate(parameters.values()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1000 * number + place))
            parameter.grad = noise + 0.1 * parameter.detach()
        optimiser.step()


def copied(parameters):
    return {key: torch.nn.Parameter(p.detach().clone()) for key, p in parameters.items()}


def rules(parameters):
    return {key: RUN.method.rule_of(key) for key in parameters}


@pytest.fixture(params=["toy", "model"])
def parameters(request, checkpoint):
    return toy() if request.param == "toy" else copied(trainable(build(RUN, checkpoint)))


def test_the_state_comes_back_from_disk_exactly(parameters, tmp_path):
    optimiser = make_optimiser(RUN, parameters)
    steps(optimiser, parameters, range(3))
    state = OptimiserState.of(optimiser, parameters)
    assert set(state.moments) == {f"{kind}/{key}" for kind in ("exp_avg", "exp_avg_sq", "step") for key in parameters}
    StateFolder(tmp_path).keep(0, state)
    found = StateFolder(tmp_path).before(1)
    for mine, theirs in ((state.moments, found.moments), (state.last, found.last)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_training_that_goes_on_equals_one_that_never_stopped_bit_for_bit(parameters, tmp_path):
    whole = copied(parameters)
    steps(make_optimiser(RUN, whole), whole, range(6))
    first = make_optimiser(RUN, parameters)
    steps(first, parameters, range(3))
    StateFolder(tmp_path).keep(0, OptimiserState.of(first, parameters))
    # Nobody turned the factors: every tensor is as the site left it.
    received = copied(parameters)
    second = make_optimiser(RUN, received)
    StateFolder(tmp_path).before(1).restore(second, received, rules(received))
    steps(second, received, range(3, 6))
    assert [key for key in whole if not torch.equal(whole[key], received[key])] == []


def test_forgotten_moments_would_be_noticed(parameters):
    whole = copied(parameters)
    steps(make_optimiser(RUN, whole), whole, range(6))
    steps(make_optimiser(RUN, parameters), parameters, range(3))
    steps(make_optimiser(RUN, parameters), parameters, range(3, 6))
    assert not any(torch.equal(whole[key], parameters[key]) for key in whole)


@pytest.fixture
def turned():
    """A trained toy with its optimiser; the same with its factors turned by R, restored; and R."""
    mine = toy()
    optimiser = make_optimiser(RUN, mine)
    steps(optimiser, mine, range(3))
    angle = torch.tensor(0.7)
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    received = copied(mine)
    with torch.no_grad():
        received["m.lora.A"].copy_(turn.T @ mine["m.lora.A"])
        received["m.lora.B"].copy_(mine["m.lora.B"] @ turn)
    restored = make_optimiser(RUN, received)
    OptimiserState.of(optimiser, mine).restore(restored, received, rules(received))
    return (mine, optimiser), (received, restored), turn


def test_moments_of_factors_turn_with_them_and_no_others(turned):
    (mine, before), (received, after), turn = turned
    old = {key: before.state[p] for key, p in mine.items()}
    new = {key: after.state[p] for key, p in received.items()}
    for kind, matrix in (("exp_avg", turn), ("exp_avg_sq", turn.square())):
        torch.testing.assert_close(new["m.lora.A"][kind], matrix.T @ old["m.lora.A"][kind], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(new["m.lora.B"][kind], old["m.lora.B"][kind] @ matrix, rtol=1e-5, atol=1e-7)
        for key in ("head.weight", "head.bias"):
            assert torch.equal(new[key][kind], old[key][kind])
    assert all(torch.equal(new[key]["step"], old[key]["step"]) for key in SHAPES)


def test_the_next_step_of_turned_factors_has_the_turned_first_moment(turned):
    (mine, before), (received, after), turn = turned
    gradient = {key: torch.randn(SHAPES[key], generator=torch.Generator().manual_seed(5)) for key in SHAPES}
    for key in SHAPES:
        mine[key].grad = gradient[key]
        received[key].grad = gradient[key].clone()
    received["m.lora.A"].grad = turn.T @ gradient["m.lora.A"]
    received["m.lora.B"].grad = gradient["m.lora.B"] @ turn
    before.step()
    after.step()
    old, new = ({key: opt.state[p[key]]["exp_avg"] for key in SHAPES} for p, opt in ((mine, before), (received, after)))
    torch.testing.assert_close(new["m.lora.A"], turn.T @ old["m.lora.A"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(new["m.lora.B"], old["m.lora.B"] @ turn, rtol=1e-5, atol=1e-6)
    assert torch.equal(mine["head.weight"], received["head.weight"])


def test_restoring_leaves_the_kept_state_alone():
    parameters = toy()
    optimiser = make_optimiser(RUN, parameters)
    steps(optimiser, parameters, range(2))
    state = OptimiserState.of(optimiser, parameters)
    kept = {key: tensor.clone() for key, tensor in state.moments.items()}
    again = make_optimiser(RUN, parameters)
    state.restore(again, parameters, rules(parameters))
    steps(again, parameters, range(2))
    assert all(torch.equal(state.moments[key], kept[key]) for key in kept)


def test_steps_are_those_of_torchs_own_class_bit_for_bit(parameters):
    theirs = copied(parameters)
    groups = [
        {
            "params": [p for p in theirs.values() if (p.ndim > 1) == matrix],
            "weight_decay": RUN.training.weight_decay * matrix,
        }
        for matrix in (True, False)
    ]
    steps(torch.optim.AdamW(groups, lr=RUN.training.learning_rate, fused=True), theirs, range(3))
    steps(make_optimiser(RUN, parameters), parameters, range(3))
    assert all(torch.equal(parameters[key], theirs[key]) for key in parameters)


def test_a_parameter_without_gradient_stays_as_it_is_and_gradients_are_forgotten():
    parameters, before = toy(), toy()
    optimiser = make_optimiser(RUN, parameters)
    parameters["m.lora.A"].grad = torch.ones(2, 7)
    optimiser.step()
    moved = [key for key in parameters if not torch.equal(parameters[key], before[key])]
    assert moved == ["m.lora.A"] and list(optimiser.state) == [parameters["m.lora.A"]]
    optimiser.zero_grad()
    assert parameters["m.lora.A"].grad is None


def test_a_step_does_not_load_torchs_compiler():
    code = """
import sys, torch
from fedpeft.config.run import make_run
from fedpeft.training.engine.optimiser import make_optimiser
parameter = torch.nn.Parameter(torch.ones(2, 2))
optimiser = make_optimiser(make_run("flap_sam", "phantom", "sam_tiny", classes=2), {"a": parameter})
(parameter ** 2).sum().backward()
optimiser.step()
assert float(parameter[0, 0].detach()) < 1
print("torch._dynamo" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_decay_is_for_matrices_only(parameters):
    before = copied(parameters)
    optimiser = make_optimiser(RUN.with_(weight_decay=0.5), parameters)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for key, parameter in parameters.items():
        factor = 1 - 0.5 * RUN.training.learning_rate if parameter.ndim > 1 else 1
        torch.testing.assert_close(parameter.detach(), factor * before[key].detach())


def state(value):
    return OptimiserState({"step/a": torch.tensor(float(value))}, {"a": torch.full((2,), float(value))})


def number(found):
    return None if found is None else int(found.moments["step/a"])


@pytest.mark.parametrize(
    ("kept", "files", "before"),
    [
        ([], [], {0: None, 3: None}),
        ([0], [0], {0: None, 1: 0, 5: 0}),
        ([0, 1, 2], [1, 2], {0: None, 1: None, 2: 1, 3: 2, 9: 2}),
        ([0, 4, 9, 10], [9, 10], {9: None, 10: 9, 11: 10}),
        ([0, 1, 1], [0, 1], {1: 0, 2: 1}),
        # A server that goes back further: what came after the round is not of this history any more.
        ([0, 1, 2, 3, 1], [1], {2: 1, 3: 1}),
    ],
)
def test_two_states_are_kept_and_a_round_never_starts_from_its_own_end(tmp_path, kept, files, before):
    folder = StateFolder(tmp_path / "site")
    for round_ in kept:
        folder.keep(round_, state(round_))
    assert {round_: number(folder.before(round_)) for round_ in before} == before
    assert sorted(file.name for file in folder.folder.glob("*")) == [f"round-{n:05d}.safetensors" for n in files]


def test_the_trained_tensors_are_those_of_the_last_round(tmp_path):
    folder = StateFolder(tmp_path)
    assert folder.trained() is None
    for round_ in range(3):
        folder.keep(round_, state(round_))
    assert folder.trained()["a"].tolist() == [2, 2]


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
def test_the_step_size_warms_up_to_the_peak_and_ends_at_zero(warmup, progress, share):
    run = RUN.with_(warmup=warmup)
    assert learning_rate_at(run, progress) == pytest.approx(share * run.training.learning_rate, abs=1e-15)

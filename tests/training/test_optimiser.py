"""Steps are torch's own AdamW's; groups differ in weight decay and in the method's factors on the learning rate."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from toy_parameters import RUN, SHAPES, copied, steps, toy

from fedpeft.config.methods import METHODS
from fedpeft.training.engine.optimiser import make_optimiser


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


def test_decay_can_be_on_every_tensor(parameters):
    before = copied(parameters)
    run = RUN.with_(weight_decay=0.5, weight_decay_on="all")
    optimiser = make_optimiser(run, parameters)
    assert {group["weight_decay"] for group in optimiser.param_groups} == {0.5}
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for key, parameter in parameters.items():
        factor = 1 - 0.5 * RUN.training.learning_rate
        torch.testing.assert_close(parameter.detach(), factor * before[key].detach())


def test_without_weight_decay_a_step_is_adams(parameters):
    theirs, run = copied(parameters), RUN.with_(weight_decay=0.0)
    steps(torch.optim.Adam(theirs.values(), lr=run.training.learning_rate, fused=True), theirs, range(3))
    steps(make_optimiser(run, parameters), parameters, range(3))
    assert all(torch.equal(parameters[key], theirs[key]) for key in parameters)


@pytest.fixture
def paced(monkeypatch):
    """A function that makes ``RUN`` with factors on the learning rate."""

    def made(*rates):
        monkeypatch.setitem(METHODS._entries, "paced", replace(RUN.method, name="paced", rates=rates))
        return RUN.with_(method="paced")

    return made


def test_the_first_glob_that_matches_decides_the_factor(paced):
    run = paced(("*.lora.B", 16.0), ("m.*", 0.5), ("*.B", 3.0))
    assert [run.method.rate_of(path) for path in ("m.lora.B", "m.lora.A", "n.B", "head.weight")] == [
        16.0,
        0.5,
        3.0,
        1.0,
    ]
    assert {RUN.method.rate_of(path) for path in SHAPES} == {1.0}


def test_each_group_has_its_factor_times_the_learning_rate(paced):
    parameters = toy()
    optimiser = make_optimiser(paced(("*.lora.B", 16.0), ("head.bias", 2.0)), parameters)
    for learning_rate in (RUN.training.learning_rate, 3e-3):
        optimiser.set_learning_rate(learning_rate)
        found = {
            id(p): (group["lr"], group["weight_decay"]) for group in optimiser.param_groups for p in group["params"]
        }
        assert {path: found[id(p)] for path, p in parameters.items()} == {
            "head.weight": (learning_rate, RUN.training.weight_decay),
            "head.bias": (2 * learning_rate, 0.0),
            "m.lora.A": (learning_rate, RUN.training.weight_decay),
            "m.lora.B": (16 * learning_rate, RUN.training.weight_decay),
        }


def test_a_factor_changes_the_steps_of_its_tensors_alone_and_is_a_learning_rate_of_its_own(paced, parameters):
    plain, other = copied(parameters), copied(parameters)
    steps(make_optimiser(RUN, plain), plain, range(1))
    steps(make_optimiser(paced(("*.lora.B", 4.0)), other), other, range(1))
    steps(make_optimiser(RUN.with_(learning_rate=4 * RUN.training.learning_rate), parameters), parameters, range(1))
    for path, tensor in other.items():
        assert torch.equal(tensor, parameters[path] if path.endswith(".lora.B") else plain[path])
        assert not torch.equal(plain[path], parameters[path])


def test_factors_of_one_change_no_bit(paced, parameters):
    plain, other = copied(parameters), copied(parameters)
    steps(make_optimiser(RUN, plain), plain, range(3))
    steps(make_optimiser(paced(("*.lora.*", 1.0)), other), other, range(3))
    assert all(torch.equal(plain[path], other[path]) for path in plain)

"""Steps: each with its learning rate, stopped at once, never stepped with a loss that is not finite."""

import pytest
import torch

from fedpeft.tasks.segmentation import make_loss
from fedpeft.tasks.types import Stopped
from fedpeft.training.engine.loop import train_epoch


class Counted(torch.optim.SGD):
    """Plain SGD that notes the learning rate of every step."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.0)
        self.rates = []

    def set_learning_rate(self, learning_rate):
        self.param_groups[0]["lr"] = learning_rate

    def step(self, closure=None):
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


@pytest.fixture
def parts(run):
    """Model, optimiser, loss and four batches."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(1, 3, 1)
    batches = [(torch.randn(2, 1, 8, 8), torch.randint(0, 3, (2, 8, 8))) for _ in range(4)]
    return model, Counted(model.parameters()), make_loss(run), batches


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def test_every_step_has_its_learning_rate_and_gives_its_loss(parts):
    model, optimiser, loss, batches = parts
    with torch.no_grad():
        first = loss(model(batches[0][0]), batches[0][1]).item()
    losses = train_epoch(model, optimiser, loss, batches, lambda index: 0.1 * (index + 1), lambda: False)
    assert optimiser.rates == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert len(losses) == 4
    assert losses[0] == pytest.approx(first)


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_it_stops_before_the_next_step(parts, allowed):
    model, optimiser, loss, batches = parts
    with pytest.raises(Stopped):
        train_epoch(model, optimiser, loss, batches, lambda _: 0.1, lambda: len(optimiser.rates) >= allowed)
    assert len(optimiser.rates) == allowed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_before_the_step(parts, value):
    model, optimiser, loss, batches = parts
    batches[1][0][0, 0, 0, 0] = value
    good = values(model)
    train_epoch(model, optimiser, loss, batches[:1], lambda _: 0.0, lambda: False)
    with pytest.raises(ValueError, match="step 1.*nan"):
        train_epoch(model, optimiser, loss, batches, lambda index: 0.0 if index == 0 else 0.1, lambda: False)
    assert all(map(torch.equal, good, values(model)))
    assert len(optimiser.rates) == 2

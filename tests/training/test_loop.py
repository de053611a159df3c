"""Steps: the loss by its formula, stopped at once, never stepped with a loss that is not finite."""

import pytest
import torch

from fedpeft.tasks.segmentation import make_loss
from fedpeft.tasks.types import Stopped
from fedpeft.training.engine.loop import train_epoch


def by_formula(logits, labels, weight):
    """(1 - weight) CE + weight (1 - mean_c 2 sum p g / (sum p^2 + sum g^2)) with sums over the whole batch, float64."""
    logits = logits.double()
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    g = torch.stack([(labels == c).double() for c in range(logits.shape[1])], 1)
    ce = -(g * p.log()).sum(1).mean()
    over = (0, 2, 3)
    dice = (2 * (p * g).sum(over) + 1e-5) / ((p**2).sum(over) + (g**2).sum(over) + 1e-5)
    return float((1 - weight) * ce + weight * (1 - dice).mean())


@pytest.mark.parametrize("weight", [0.8, 0.0, 1.0])
@pytest.mark.parametrize("empty", [False, True])
def test_the_loss_is_the_papers(run, weight, empty):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 1 if empty else 3, (4, 8, 8), generator=generator)
    labels[1] = 0
    found = make_loss(run.with_(dice_weight=weight))(logits, labels)
    assert float(found) == pytest.approx(by_formula(logits, labels, weight), rel=1e-5)


def test_the_run_weighs_as_the_paper(run):
    assert run.training.dice_weight == 0.8


class Counted(torch.optim.SGD):
    """Plain SGD that notes the learning rate of every step."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.0)
        self.sizes = []

    def step(self, closure=None):
        self.sizes.append(self.param_groups[0]["lr"])
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


def test_every_step_has_its_step_size_and_gives_its_loss(parts):
    model, optimiser, loss, batches = parts
    with torch.no_grad():
        first = loss(model(batches[0][0]), batches[0][1]).item()
    losses = train_epoch(model, optimiser, loss, batches, lambda index: 0.1 * (index + 1), lambda: False)
    assert optimiser.sizes == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert len(losses) == 4
    assert losses[0] == pytest.approx(first)


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_it_stops_before_the_next_step(parts, allowed):
    model, optimiser, loss, batches = parts
    with pytest.raises(Stopped):
        train_epoch(model, optimiser, loss, batches, lambda _: 0.1, lambda: len(optimiser.sizes) >= allowed)
    assert len(optimiser.sizes) == allowed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_before_the_step(parts, value):
    model, optimiser, loss, batches = parts
    batches[1][0][0, 0, 0, 0] = value
    good = values(model)
    train_epoch(model, optimiser, loss, batches[:1], lambda _: 0.0, lambda: False)
    with pytest.raises(ValueError, match="step 1.*nan"):
        train_epoch(model, optimiser, loss, batches, lambda index: 0.0 if index == 0 else 0.1, lambda: False)
    assert all(map(torch.equal, good, values(model)))
    assert len(optimiser.sizes) == 2

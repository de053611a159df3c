"""Three steps of the authors' recipe against rate, loss and AdamW written anew from their definitions, in float64."""

from copy import deepcopy

import pytest
import torch

from fedpeft.config.presets import RECIPES
from fedpeft.config.run import make_run
from fedpeft.models.initial import build
from fedpeft.models.payload import trainable
from fedpeft.tasks.segmentation import make_loss
from fedpeft.training.engine.loop import train_epoch
from fedpeft.training.engine.optimiser import make_optimiser
from fedpeft.training.engine.schedule import learning_rate_of

AUTHORS = RECIPES["authors"]
RUN = make_run(
    AUTHORS.variants["flap_sam"],
    "phantom",
    "sam_tiny",
    classes=2,
    **AUTHORS.fields | {"site_weighting": "uniform", "image_size": 32},
)
STEPS = 30


@pytest.fixture
def model(checkpoint):
    made = build(RUN, checkpoint)
    # segment_anything computes positions, which do not train, in float32.
    positions = made.prompt_encoder.get_dense_pe().double()
    made = made.double().train()
    made.prompt_encoder.get_dense_pe = lambda: positions
    return made


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.rand((3, 1, 32, 32), generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (3, 32, 32), generator=generator),
        )
        for _ in range(3)
    ]


def loss_by_definition(logits, labels):
    """0.2 cross-entropy + 0.8 Dice loss: softmax with background, squares below, smoothing 1e-5, the batch as one."""
    scaled = (logits - logits.amax(1, keepdim=True)).exp()
    chances = scaled / scaled.sum(1, keepdim=True)
    truth = torch.stack([labels == index for index in range(logits.shape[1])], dim=1).double()
    dice = 0.0
    for mine, true in zip(chances.transpose(0, 1), truth.transpose(0, 1), strict=True):
        dice += (2 * (mine * true).sum() + 1e-5) / ((mine**2).sum() + (true**2).sum() + 1e-5) / logits.shape[1]
    return 0.2 * -(chances.log() * truth).sum() / labels.numel() + 0.8 * (1 - dice)


def rate_by_definition(step):
    """The rate that was set after the step before: 250 steps up to 8e-4, then (1 - t)^7 over 200 epochs."""
    if step == 0:
        return 8e-4 / 250
    done = step - 1
    return 8e-4 * (done + 1) / 250 if done < 250 else 8e-4 * (1 - (done - 250) / (200 * STEPS)) ** 7


def step_by_definition(tensors, gradients, moments, count, rate):
    """AdamW (Loshchilov and Hutter 2019) with weight decay 0.1 on every tensor, in numpy."""
    for path, tensor in tensors.items():
        gradient = gradients[path].numpy()
        first, second = moments.get(path, (0.0, 0.0))
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        moments[path] = first, second
        size = (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)) ** 0.5 + 1e-8)
        decayed = tensor.detach().numpy() * (1 - rate * 0.1)
        tensor.data = torch.from_numpy(decayed - rate * size)


@pytest.mark.parametrize("round_", [0, 10])
def test_three_steps_agree_with_their_definitions(model, batches, round_):
    mine, other = model, deepcopy(model)
    before = {path: tensor.detach().clone() for path, tensor in trainable(mine).items()}
    losses = train_epoch(
        mine,
        make_optimiser(RUN, trainable(mine)),
        make_loss(RUN),
        batches,
        lambda index: learning_rate_of(RUN, round_, index, STEPS, STEPS),
        lambda: False,
    )
    tensors, moments = trainable(other), {}
    for index, (images, labels) in enumerate(batches):
        value = loss_by_definition(other(images), labels)
        assert losses[index] == pytest.approx(value.item(), rel=1e-9)
        gradients = dict(zip(tensors, torch.autograd.grad(value, list(tensors.values())), strict=True))
        step_by_definition(tensors, gradients, moments, index + 1, rate_by_definition(round_ * STEPS + index))
    for path, tensor in trainable(mine).items():
        assert tensor.dtype == torch.float64 and not torch.equal(tensor, before[path]), path
        apart = (tensor - tensors[path]).norm() / tensors[path].norm()
        assert apart <= 1e-9, f"{path}: {apart}"


def test_the_comparison_sees_a_missing_part(model, batches):
    """Without weight decay on vectors, three steps differ by far more than the limit above."""
    other = deepcopy(model)
    for run, copy in ((RUN, model), (RUN.with_(weight_decay_on="matrices"), other)):
        optimiser = make_optimiser(run, trainable(copy))
        train_epoch(copy, optimiser, make_loss(run), batches, lambda _: rate_by_definition(10 * STEPS), lambda: False)
    apart = {
        path: ((tensor - trainable(other)[path]).norm() / tensor.norm()).item()
        for path, tensor in trainable(model).items()
        if tensor.ndim == 1
    }
    assert apart and max(apart.values()) > 1e-6

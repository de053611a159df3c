"""A few small parameters and optimiser steps on them."""

import torch

from fedpeft.config.run import make_run

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

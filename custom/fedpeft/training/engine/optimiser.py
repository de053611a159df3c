"""AdamW, with parameter groups by weight decay and by the method's learning rate factors."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from fedpeft.config.run import Run

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW:
    """AdamW by torch's own function (betas 0.9, 0.999), bit for bit as torch's class.

    torch's class loads torch's compiler, which no step here needs and which takes 2 of a site's 6 seconds to start. The
    fused form passes once over a tensor, its gradient and its moments, which speeds up full fine-tuning.

    Args:
        groups: each has "params", "weight_decay" and "factor", which multiplies the run's learning rate.
        learning_rate: the run's learning rate until ``set_learning_rate`` changes it.

    Attributes:
        param_groups: the groups, each with its learning rate as "lr".
        state: parameter -> "step", "exp_avg", "exp_avg_sq"; without parameters that had no gradient so far.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float) -> None:
        self.param_groups = groups
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        self.set_learning_rate(learning_rate)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set each group's learning rate to its factor times ``learning_rate``."""
        for group in self.param_groups:
            group["lr"] = group["factor"] * learning_rate

    def zero_grad(self) -> None:
        """Remove all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        for group in self.param_groups:
            mine = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._state(parameter) for parameter in mine]
            first, second, steps = ([state[kind] for state in states] for kind in (*MOMENTS, "step"))
            adamw(
                mine,
                [parameter.grad for parameter in mine],
                first,
                second,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=1e-8,
                maximize=False,
            )

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        if parameter not in self.state:
            moments = {kind: torch.zeros_like(parameter) for kind in MOMENTS}
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            self.state[parameter] = {"step": step, **moments}
        return self.state[parameter]


def make_optimiser(run: Run, parameters: dict[str, nn.Parameter]) -> AdamW:
    """AdamW over ``parameters``, path -> parameter.

    Matrices and kernels have the run's weight decay; biases and scales have it only with ``weight_decay_on`` "all". A
    parameter's learning rate is the run's times the method's factor (``Method.rate_of``), such as LoRA+'s for B (Hayou
    et al., ICML 2024).
    """
    everywhere = run.training.weight_decay_on == "all"
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for path, parameter in parameters.items():
        weight_decay = run.training.weight_decay if everywhere or parameter.ndim > 1 else 0.0
        groups.setdefault((weight_decay, run.method.rate_of(path)), []).append(parameter)
    return AdamW(
        [
            {"params": mine, "weight_decay": weight_decay, "factor": factor}
            for (weight_decay, factor), mine in groups.items()
        ],
        run.training.learning_rate,
    )

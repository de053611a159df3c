"""AdamW, with groups by weight decay and by the method's factors on the learning rate."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from fedpeft.config.run import Run

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW:
    """torch's AdamW through torch's own function of it (betas 0.9, 0.999), bit for bit.

    torch's class loads torch's compiler, which no step here needs: 2 of the 6 seconds that a site takes to start.
    Fused: one pass over a tensor, its gradient and its moments, which a step of full fine-tuning notices.

    Args:
        groups: each with "params", "weight_decay" and "factor", by which its learning rate is the run's.
        learning_rate: the run's, until ``set_learning_rate`` says another.

    Attributes:
        param_groups: the groups, each with its learning rate as "lr".
        state: parameter -> "step", "exp_avg", "exp_avg_sq"; none for those that had no gradient yet.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float) -> None:
        self.param_groups = groups
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        self.set_learning_rate(learning_rate)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Give each group its factor times ``learning_rate``."""
        for group in self.param_groups:
            group["lr"] = group["factor"] * learning_rate

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step of the parameters that have a gradient."""
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
    """AdamW over ``parameters``, by path.

    Matrices and kernels have the run's weight decay, biases and scales none. The learning rate of a parameter is the
    run's times a factor of the method's, such as LoRA+'s for B (Hayou et al., ICML 2024), see ``Method.rate_of``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for path, parameter in parameters.items():
        weight_decay = run.training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((weight_decay, run.method.rate_of(path)), []).append(parameter)
    return AdamW(
        [
            {"params": mine, "weight_decay": weight_decay, "factor": factor}
            for (weight_decay, factor), mine in groups.items()
        ],
        run.training.learning_rate,
    )

"""AdamW whose moments survive a round, and the learning rate over a run.

The policy, the same in every setting: a site keeps its moments between rounds. The factors that come back from the
server stand in another basis than those the site sent, so the moments of A and B are rotated along, by the orthogonal
R that carries the site's last factors onto the received ones. Moments of all other tensors stay as they are.
"""

from dataclasses import dataclass, field
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from fedpeft.algebra.align import procrustes, rotate_moments
from fedpeft.common.files import read_tensors, write_tensors
from fedpeft.config.run import Run

MOMENTS = ("exp_avg", "exp_avg_sq")
GLOBAL = "global.safetensors"


class AdamW:
    """torch's AdamW through torch's own function of it (betas 0.9, 0.999), bit for bit.

    torch's class loads torch's compiler, which no step here needs: 2 of the 6 seconds that a site takes to start.
    Fused: one pass over a tensor, its gradient and its moments, which is what a step of full fine-tuning would notice.

    Args:
        groups: each with "params" and "weight_decay".
        lr: the first learning rate, kept in the groups as "lr".

    Attributes:
        param_groups: the groups.
        state: parameter -> "step", "exp_avg", "exp_avg_sq"; none for those that had no gradient yet.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        self.param_groups = [group | {"lr": lr} for group in groups]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

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
    """AdamW with decay on matrices and kernels, none on biases and scales."""
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": run.training.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], run.training.learning_rate)


def learning_rate_at(run: Run, progress: float) -> float:
    """Learning rate at a share of the run: a linear warm-up, then the run's decay to zero.

    Args:
        run: gives the peak, the warm-up's share and the decay.
        progress: (round + share of the round done) / rounds, 0 to 1. It counts the run, not a site's own steps, so
            that every site and setting is at the same place of the schedule.
    """
    if progress < run.training.warmup:
        return run.training.learning_rate * progress / run.training.warmup
    if run.training.lr_schedule == "power7":
        return run.training.learning_rate * ((1 - progress) / (1 - run.training.warmup)) ** 7
    return (
        run.training.learning_rate * 0.5 * (1 + cos(pi * (progress - run.training.warmup) / (1 - run.training.warmup)))
    )


@dataclass
class OptimiserState:
    """What a site keeps after a round.

    Attributes:
        moments: "<exp_avg | exp_avg_sq | step>/<parameter path>" -> tensor.
        last: the trained parameters at the end of the round, to see how the factors were turned since.
        owed: what the codec kept back of the differences that the site has sent; absent where that is nothing.
    """

    moments: dict[str, Tensor]
    last: dict[str, Tensor]
    residual: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, optimiser: AdamW, parameters: dict[str, nn.Parameter]) -> "OptimiserState":
        """A copy of the optimiser's present state; tensors that got no gradient yet have none."""
        moments = {
            f"{kind}/{path}": value.detach().cpu().clone()
            for path, parameter in parameters.items()
            for kind, value in optimiser.state.get(parameter, {}).items()
        }
        return cls(moments, {path: p.detach().cpu().clone() for path, p in parameters.items()})

    def after(self, before: "OptimiserState | None") -> "OptimiserState":
        """This state with what it lacks taken from an earlier one: tensors that this round did not train."""
        if before is None:
            return self
        residual = {path: tensor for path, tensor in before.residual.items() if path not in self.last}
        return OptimiserState(before.moments | self.moments, before.last | self.last, residual | self.residual)

    def restore(self, optimiser: AdamW, parameters: dict[str, nn.Parameter], rules: dict[str, str]) -> None:
        """Put the moments into a new optimiser, those of product factors rotated to the basis of ``parameters``.

        Args:
            optimiser: fresh, over ``parameters``.
            parameters: the tensors as received for the new round.
            rules: parameter path -> averaging rule; "product" marks factors A (rank, in) and B (out, rank).
        """
        for path, parameter in parameters.items():
            if f"step/{path}" not in self.moments:
                continue
            first, second = (self.moments[f"{kind}/{path}"] for kind in MOMENTS)
            if rules[path] == "product":
                first, second = rotate_moments(first, second, self._turn(path, parameters), dim=int(path.endswith("B")))
            optimiser.state[parameter] = {
                "step": self.moments[f"step/{path}"].to(parameter.device, copy=True),
                "exp_avg": first.to(parameter.device, copy=True),
                "exp_avg_sq": second.to(parameter.device, copy=True),
            }

    def pending(self, parameters: dict[str, nn.Parameter], rules: dict[str, str]) -> dict[str, Tensor]:
        """What is owed of ``parameters``, in the basis in which they were received; see ``restore``."""
        residual = {path: self.residual[path] for path in parameters if path in self.residual}
        for path, tensor in residual.items():
            if rules[path] == "product":
                turn = self._turn(path, parameters)
                residual[path] = tensor @ turn if path.endswith("B") else turn.mT @ tensor
        return residual

    def _turn(self, path: str, received: dict[str, nn.Parameter]) -> Tensor:
        """The rotation (rank, rank) from the site's own factors of this module to the received ones."""
        module = path.rpartition(".")[0]
        own = torch.cat([self.last[f"{module}.B"], self.last[f"{module}.A"].mT]).double()
        new = torch.cat([received[f"{module}.B"].detach(), received[f"{module}.A"].detach().mT]).double()
        return procrustes(own, new.cpu()).float()


class StateFolder:
    """A site's states of one run on its disk, one file a round, the last two kept.

    Two, because a round may have to be trained again (a lost reply, a restarted server): it must then start from the
    state before it, not from its own end.

    Args:
        folder: ``<state_dir>/<run key>/<site>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def before(self, round_: int) -> OptimiserState | None:
        """The state after the last round before ``round_`` that this site trained, or None."""
        earlier = [number for number in self._rounds() if number < round_]
        if not earlier:
            return None
        moments: dict[str, Tensor] = {}
        others: dict[str, dict[str, Tensor]] = {"last": {}, "residual": {}}
        for key, tensor in read_tensors(self._file(max(earlier))).items():
            kind, _, path = key.partition("/")
            if kind in others:
                others[kind][path] = tensor
            else:
                moments[key] = tensor
        return OptimiserState(moments, **others)

    def keep(self, round_: int, state: OptimiserState) -> None:
        """Write the state after ``round_``; keep two, and nothing later: a run may have gone back."""
        for number in self._rounds():
            if number > round_:
                self._file(number).unlink()
        last = {f"last/{path}": tensor for path, tensor in state.last.items()}
        residual = {f"residual/{path}": tensor for path, tensor in state.residual.items()}
        write_tensors(self._file(round_), state.moments | last | residual)
        for number in sorted(self._rounds())[:-2]:
            self._file(number).unlink()

    def trained(self) -> dict[str, Tensor] | None:
        """The site's own trained tensors at the end of its last round, or None before the first."""
        state = self.before(max(self._rounds(), default=-1) + 1)
        return state.last if state else None

    def keep_global(self, tensors: dict[str, Tensor], received: dict[str, int]) -> None:
        """Write the global tensors as the site knows them, with the round in which each was received."""
        rounds = {f"round/{path}": torch.tensor(number) for path, number in received.items()}
        write_tensors(self.folder / GLOBAL, {f"tensor/{path}": value for path, value in tensors.items()} | rounds)

    def kept_global(self) -> tuple[dict[str, Tensor], dict[str, int]] | None:
        """What ``keep_global`` wrote, or None."""
        if not (self.folder / GLOBAL).is_file():
            return None
        kept: dict[str, dict[str, Tensor]] = {"tensor": {}, "round": {}}
        for key, value in read_tensors(self.folder / GLOBAL).items():
            kind, _, path = key.partition("/")
            kept[kind][path] = value
        return kept["tensor"], {path: int(value) for path, value in kept["round"].items()}

    def _rounds(self) -> list[int]:
        return [int(file.stem.removeprefix("round-")) for file in self.folder.glob("round-*.safetensors")]

    def _file(self, round_: int) -> Path:
        return self.folder / f"round-{round_:05d}.safetensors"

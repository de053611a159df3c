"""What a site keeps on its disk between the rounds of a run.

Optimiser moments survive a round in every setting. The factors that the server returns are in another basis than those
that the site sent, so the moments of A and B are rotated by the orthogonal R that best maps the site's last factors
onto the received ones. Moments of all other tensors stay as they are.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from fedpeft.algebra.align import procrustes, rotate_moments
from fedpeft.common.files import read_tensors, write_tensors
from fedpeft.training.engine.optimiser import MOMENTS, AdamW

GLOBAL = "global.safetensors"


@dataclass
class OptimiserState:
    """The state that a site keeps after a round.

    Attributes:
        moments: "<exp_avg | exp_avg_sq | step>/<parameter path>" -> tensor.
        last: parameter path -> the trained tensor at the end of the round, from which the rotation is computed.
        residual: parameter path -> the codec's error on the updates that the site has sent; absent where it is zero.
    """

    moments: dict[str, Tensor]
    last: dict[str, Tensor]
    residual: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, optimiser: AdamW, parameters: dict[str, nn.Parameter]) -> "OptimiserState":
        """A copy of the optimiser's present state; a tensor without a gradient so far has no moments."""
        moments = {
            f"{kind}/{path}": value.detach().cpu().clone()
            for path, parameter in parameters.items()
            for kind, value in optimiser.state.get(parameter, {}).items()
        }
        return cls(moments, {path: p.detach().cpu().clone() for path, p in parameters.items()})

    def after(self, before: "OptimiserState | None") -> "OptimiserState":
        """This state, with the entries of ``before`` for the tensors that this round did not train."""
        if before is None:
            return self
        residual = {path: tensor for path, tensor in before.residual.items() if path not in self.last}
        return OptimiserState(before.moments | self.moments, before.last | self.last, residual | self.residual)

    def restore(self, optimiser: AdamW, parameters: dict[str, nn.Parameter], rules: dict[str, str]) -> None:
        """Put the moments into a new optimiser; rotate those of product factors into the basis of ``parameters``.

        Args:
            optimiser: a new optimiser over ``parameters``.
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
        """The residual of ``parameters``, rotated into the basis in which they were received; see ``restore``."""
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
    """A site's states of one run on its disk: one file for each of the last two rounds.

    A round may have to be trained again, after a lost reply or a restart of the server. It then starts from the state
    before that round, so keeping only the last state would not be enough.

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
        """Write the state after ``round_``; keep the last two, and none of a later round of a run that went back."""
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
        """Write the site's copy of the global tensors, with the round in which each was received."""
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

"""Find the method whose network and trained tensors hold what another program trained."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from fedpeft.config.run import Run
from fedpeft.models.adapters.base import adapter_prefixes
from fedpeft.models.initial import skeleton
from fedpeft.models.payload import whole
from fedpeft.models.peers.form import UNUSED, PeerForm, Tensors

# Largest distance of a frozen tensor from the base that counts as rounding, as a share of the tensor's largest value.
# The authors interpolate positions in float32, 1e-5 from ours, and FLAP-SAM averages frozen tensors too, 3e-7 after 300
# rounds with its weights. Training moves a tensor by more than 1e-3 in the first epoch of its warm-up.
ROUNDING = 1e-4


def file_shapes(run: Run, form: PeerForm) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of a run's model that a file of the form holds."""
    model = skeleton(run)
    parts = (*form.parts, *adapter_prefixes(model))
    return {name: tensor.shape for name, tensor in model.state_dict().items() if name.startswith(parts)}


def faults(found: Mapping[str, Tensor], run: Run, form: PeerForm) -> list[str]:
    """What keeps tensors, under our names, from being those of the run's network; empty if they are."""
    wanted = file_shapes(run, form)
    lacking = [f"{name!r} is missing" for name in wanted if name not in found]
    extra = [f"{name!r} is not part of it" for name in found if name not in wanted]
    shapes = [
        f"{name!r} has shape {tuple(found[name].shape)}, expected {tuple(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name].shape != shape
    ]
    return shapes + extra + lacking


def distances(found: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> dict[str, float]:
    """How far each tensor is from the initial model's: the largest distance by the largest value; unused ones left out.

    Args:
        found: a file's tensors under our names.
        initial: the tensors of the initial model, which a method keeps where it does not train them.
    """
    return {name: _distance(tensor, initial[name]) for name, tensor in found.items() if not name.startswith(UNUSED)}


def _distance(one: Tensor, other: Tensor) -> float:
    largest = float(other.abs().max())
    apart = float((one.float() - other).abs().max())
    return apart / largest if largest else (0.0 if apart == 0 else float("inf"))


def covering(runs: Sequence[Run], apart: Mapping[str, float]) -> Run | None:
    """The first run that trains every tensor which differs from the initial model beyond rounding; None if none does.

    Args:
        runs: of different methods with the same network.
        apart: see ``distances``.
    """
    changed = {name for name, distance in apart.items() if not distance <= ROUNDING}
    return next((run for run in runs if changed <= whole(run).keys()), None)


def lost(run: Run, apart: Mapping[str, float]) -> list[tuple[str, float]]:
    """The tensors that a run does not train although they differ beyond rounding, the farthest first."""
    trained = whole(run)
    left = [(name, value) for name, value in apart.items() if not value <= ROUNDING and name not in trained]
    return sorted(left, key=lambda item: -item[1])


def trained_part(found: Tensors, trained: Collection[str]) -> Tensors:
    """The tensors that a run trains, in float32."""
    return {name: found[name].float().contiguous() for name in trained}


def frozen_part(found: Tensors, trained: Collection[str], initial: Mapping[str, Tensor]) -> Tensors:
    """The tensors that a run does not train and that differ in any bit from those of the initial model."""
    return {
        name: tensor.contiguous()
        for name, tensor in found.items()
        if name not in trained and not tensor.equal(initial[name])
    }

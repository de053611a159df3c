"""The initial model: checkpoint + seed, the same on the server and at every site.

Every tensor that the checkpoint does not give is made on the CPU by its own generator, seeded by (seed, parameter
path), so neither device nor order nor other tensors matter. Random values and resized positions are computed in float64
and rounded once, so that processors with other vector instructions agree on the float32 result.
"""

import hashlib
from collections.abc import Callable, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fedpeft.config.run import Run
from fedpeft.config.seeds import seed_of
from fedpeft.models.adapters.base import AdapterModule, ZeroInitLinear
from fedpeft.models.adapters.registry import adapt, finish
from fedpeft.models.checkpoints.reading import read_checkpoint
from fedpeft.models.initial_values import ONES, ZEROS, Gaussian, Initial, Uniform
from fedpeft.models.networks import network

# How segment_anything scales the random frequencies of its positions.
SCALING = (Tensor.mul, Tensor.__mul__, Tensor.__rmul__)


def skeleton(run: Run) -> nn.Module:
    """The run's model on the meta device: names and shapes without memory; trainable tensors require gradients."""
    with torch.device("meta"), _Unfilled():
        model = network(run)
        adapt(model, run)
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(run.method.trains_tensor(path))
    return model


class _Unfilled(TorchFunctionMode):
    """Skip the random initialisation of new tensors, for which torch loads its compiler on the meta device."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, unless it makes or scales random values."""
        kwargs = kwargs or {}
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        scales = func in SCALING and not isinstance(args[1], Tensor)
        if scales or getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build(run: Run, checkpoint: Path | None) -> nn.Module:
    """The run's initial model on the CPU in float32.

    Args:
        run: what to build.
        checkpoint: file with the backbone's weights; None initialises every tensor (tests and pretraining).

    Raises:
        ValueError: the checkpoint does not fit; the message names the file and the first offending key.
    """
    model = skeleton(run)
    given = read_checkpoint(checkpoint, model, run.backbone) if checkpoint else {}
    # to_empty would load torch's compiler on the meta device, which takes a second.
    memory = {path: torch.empty(tensor.shape, dtype=tensor.dtype) for path, tensor in named_tensors(model).items()}
    model.load_state_dict(memory, assign=True)
    with torch.no_grad():
        for path, tensor in named_tensors(model).items():
            if path in given:
                tensor.copy_(given[path])
            else:
                owner, _, leaf = path.rpartition(".")
                generator = torch.Generator().manual_seed(seed_of(run.training.seed, path))
                tensor.copy_(_initial(model.get_submodule(owner), leaf).sample(tensor.shape, generator))
        finish(model)
    return model


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that belong to the model's state, by path."""
    return model.state_dict(keep_vars=True)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all the model's tensors, in the order of their names."""
    return fingerprint_of(named_tensors(model))


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of tensors, in the order of their names."""
    sha = hashlib.sha256()
    for path, tensor in sorted(tensors.items()):
        sha.update(f"{path} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().data)
    return sha.hexdigest()


def _initial(owner: nn.Module, leaf: str) -> Initial:
    """How a tensor starts, by its module: as in PyTorch (He et al. 2015), as in ViT, or as its adapter says."""
    if isinstance(owner, AdapterModule):
        return owner.initial(leaf)
    if isinstance(owner, ZeroInitLinear):
        return ZEROS
    if isinstance(owner, nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d) and leaf in ("weight", "bias"):
        return Uniform(1 / sqrt(owner.weight[0].numel()))
    if isinstance(owner, nn.Embedding) or leaf == "positional_encoding_gaussian_matrix":
        return Gaussian(1.0)
    if leaf in ("pos_embed", "cls_token"):
        return Gaussian(0.02)
    # What remains: scales of normalisation layers, their shifts, and relative positions.
    return ONES if leaf == "weight" else ZEROS

"""The kinds of adapters, and how a method's adapters are put into a model.

A new kind is one module of this package, or of another one, that calls ``register_adapter``. Its parameters are below
the layer that it adapts (``...attn.qkv.lora.q.A``), or below the module whose layers share them
(``image_encoder.fact.U``), inside an ``AdapterModule``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from torch import nn

from fedpeft.common.registry import Registry
from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.base import ReadsFrozenWeights

Layer = TypeVar("Layer", bound=nn.Module)
# (model, its layers by their paths, the method's adapter, the kind's options, the run): changes the model in place.
Put = Callable[[nn.Module, dict[str, Layer], Adapter, Any, Run], None]


@dataclass(frozen=True)
class Kind:
    """A kind of adapter.

    Attributes:
        layer: class of the layers that it adapts.
        put: puts it into a model, in place, on these layers by their paths.
        remedy: what to do if a model has no such layer.
    """

    layer: type[nn.Module]
    put: Put[Any]
    remedy: str


ADAPTERS: Registry[Kind] = Registry("kind of adapter", __package__)


def register_adapter(
    name: str, layer: type[Layer], remedy: str = "check the method's adapters against the backbone"
) -> Callable[[Put[Layer]], Put[Layer]]:
    """Add the decorated function as the kind of adapter that methods call ``name``.

    Args:
        name: what methods' entries call it.
        layer: class of the layers that it adapts; the function gets those that a method's glob matches.
        remedy: what to do if a model has no such layer, for the message.

    Raises:
        ValueError: there is another kind of that name.
    """

    def register(put: Put[Layer]) -> Put[Layer]:
        ADAPTERS.register(name, Kind(layer, put, remedy))
        return put

    return register


def adapt(model: nn.Module, run: Run) -> None:
    """Put the adapters of the run's method into ``model``, in place.

    Raises:
        ValueError: an adapter matches no layer of the model, so the method would silently train less than it says.
    """
    for adapter in run.adapters:
        kind = ADAPTERS.find(adapter.kind)
        layers = {
            path: layer
            for path, layer in model.named_modules()
            if isinstance(layer, kind.layer) and fnmatchcase(path, adapter.layer)
        }
        if not layers:
            raise ValueError(
                f"{run.model.method} cannot adapt {run.model.backbone}: no {kind.layer.__name__} matches "
                f"{adapter.layer!r}; {kind.remedy}"
            )
        kind.put(model, layers, adapter, adapter.options, run)


def finish(model: nn.Module) -> None:
    """Let adapters set what depends on the frozen weights, once these are in place."""
    for module in model.modules():
        if isinstance(module, ReadsFrozenWeights):
            module.read_frozen_weights()

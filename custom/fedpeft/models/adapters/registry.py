"""The kinds of adapters, and how each is put into a model.

An adapted layer keeps its own parameter paths (``...attn.qkv.weight``), so published checkpoints load unchanged; the
adapter's are below it (``...attn.qkv.lora.q.A``), or below the module whose layers share them
(``image_encoder.fact.U``). A new kind of adapter is one module and one entry in ``ADAPTERS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from fedpeft.config.methods import Adapter
from fedpeft.config.run import Run
from fedpeft.models.adapters.bottlenecks import put_bottlenecks
from fedpeft.models.adapters.fact import FacTLinear, TensorTrain, Tucker
from fedpeft.models.adapters.lora import DoRAFactors, DoRALinear, Gate, LoRALinear, LowRank, MoLELinear
from fedpeft.models.adapters.prompts import LowRankPrompts, PromptedEncoder, Prompts
from fedpeft.models.adapters.slices import MixingBlock
from fedpeft.models.sam.parts import Block
from fedpeft.models.vit.network import VitEncoder

EXPERTS = 3
Layers = dict[str, nn.Module]


def _lora(model: nn.Module, layers: Layers, adapter: Adapter, run: Run) -> None:
    for path, layer in layers.items():
        _replace(model, path, LoRALinear(layer, adapter, lambda n, m: LowRank(n, m, run.option("rank"))))


def _dora(model: nn.Module, layers: Layers, adapter: Adapter, run: Run) -> None:
    for path, layer in layers.items():
        _replace(model, path, DoRALinear(layer, adapter, lambda n, m: DoRAFactors(n, m, run.option("rank"))))


def _mole(model: nn.Module, layers: Layers, adapter: Adapter, run: Run) -> None:
    for path, layer in layers.items():
        attention = model.get_submodule(path.rpartition(".")[0])
        if not hasattr(attention, "gate"):
            attention.gate = Gate(EXPERTS)
        _replace(model, path, MoLELinear(layer, adapter, run.option("rank"), attention.gate))


def _fact(form: type[TensorTrain]) -> Callable[[nn.Module, Layers, Adapter, Run], None]:
    def put(model: nn.Module, layers: Layers, adapter: Adapter, run: Run) -> None:
        first = next(iter(layers.values()))
        parts, slots = len(adapter.of) or 1, len(adapter.slots) or 1
        shape = first.in_features, first.out_features // parts
        for path, layer in layers.items():
            if (layer.in_features, layer.out_features // parts) != shape:
                raise ValueError(
                    f"{path} has {layer.in_features} inputs and {layer.out_features} outputs, others that match "
                    f"{adapter.layer!r} differ: FacT's layers share their bases; give each width a row of its own"
                )
        fact = form(*shape, run.option("rank"), len(layers) * slots)
        # The module that contains all the layers, one level below the model.
        model.get_submodule(next(iter(layers)).partition(".")[0]).fact = fact
        for number, (path, layer) in enumerate(layers.items()):
            _replace(model, path, FacTLinear(layer, adapter, fact, number * slots))

    return put


def _slices(model: nn.Module, layers: Layers, adapter: Adapter, run: Run) -> None:
    for path, block in layers.items():
        _replace(model, path, MixingBlock(block, run.backbone.dim, run.data.stack))


def _prompts(made: Callable[[Run], nn.Module]) -> Callable[[nn.Module, Layers, Adapter, Run], None]:
    def put(model: nn.Module, layers: Layers, adapter: Adapter, run: Run) -> None:
        for block in layers.values():
            block.prompts = made(run)
            block.attn.prompted = (block.norm1, block.prompts)

    return put


def _first_prompts(model: nn.Module, layers: Layers, adapter: Adapter, run: Run) -> None:
    for path, image_encoder in layers.items():
        _replace(model, path, PromptedEncoder(image_encoder, Prompts(run.option("prompts"), run.backbone)))


def _bottlenecks(model: nn.Module, layers: Layers, adapter: Adapter, run: Run) -> None:
    for block in layers.values():
        put_bottlenecks(block, run.backbone.dim, run.option("rank"))


@dataclass(frozen=True)
class Kind:
    """A kind of adapter.

    Attributes:
        layer: class of the layers that it adapts.
        put: puts it into a model, on these layers by their paths.
        remedy: what to do where a model has none of them.
    """

    layer: type[nn.Module]
    put: Callable[[nn.Module, Layers, Adapter, Run], None]
    remedy: str = "check the adapter's row against the backbone"


ADAPTERS: dict[str, Kind] = {
    "lora": Kind(nn.Linear, _lora),
    "dora": Kind(nn.Linear, _dora),
    "mole": Kind(nn.Linear, _mole),
    "fact_tt": Kind(nn.Linear, _fact(TensorTrain)),
    "fact_tk": Kind(nn.Linear, _fact(Tucker)),
    "slices": Kind(Block, _slices),
    "prompts": Kind(Block, _prompts(lambda run: Prompts(run.option("prompts"), run.backbone))),
    "low_rank_prompts": Kind(
        Block, _prompts(lambda run: LowRankPrompts(run.option("prompts"), run.option("rank"), run.backbone))
    ),
    "first_prompts": Kind(
        VitEncoder, _first_prompts, "a grid of patches carries no prompts from block to block: take vpt_deep or a ViT"
    ),
    "bottlenecks": Kind(Block, _bottlenecks),
}


def adapt(model: nn.Module, run: Run) -> None:
    """Put the adapters of the run's method into ``model``, in place.

    Raises:
        ValueError: a row matches no layer of the model, so the method would silently train less than it says.
    """
    for adapter in run.method.adapters:
        kind = ADAPTERS[adapter.kind]
        layers = {
            path: layer
            for path, layer in model.named_modules()
            if isinstance(layer, kind.layer) and fnmatchcase(path, adapter.layer)
        }
        if not layers:
            raise ValueError(
                f"{run.model.method} cannot adapt {run.model.backbone}: no {kind.layer.__name__} matches {adapter.layer!r}; "
                f"{kind.remedy}"
            )
        kind.put(model, layers, adapter, run)


def finish(model: nn.Module) -> None:
    """Set what depends on the frozen weights, once these are in place."""
    for module in model.modules():
        if isinstance(module, DoRALinear):
            module.measure()


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)

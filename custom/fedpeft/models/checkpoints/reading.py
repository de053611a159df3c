"""Read a backbone's weights from a user's file, in any of the registered formats.

The positions of a checkpoint trained at another image size are interpolated: SAM's absolute ones bilinearly, a ViT's
bicubically, and relative ones of global blocks linearly (those of windowed blocks do not depend on the size).
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path

from torch import Tensor, nn

from fedpeft.config.backbones import Backbone
from fedpeft.models.adapters.base import adapter_prefixes
from fedpeft.models.checkpoints.files import load_tensors
from fedpeft.models.checkpoints.format import Format, format_of, remedy
from fedpeft.models.peers.recognition import hint
from fedpeft.models.positions import fit

WEIGHTS = Path(__file__).parents[1] / "weights"


def shipped(backbone: Backbone) -> Path | None:
    """The package's own checkpoint of a backbone, or None if the user must bring one."""
    return WEIGHTS / backbone.resource if backbone.resource else None


def read_checkpoint(file: Path, model: nn.Module, backbone: Backbone) -> dict[str, Tensor]:
    """The tensors of ``file`` that the model takes over, fitted to the model's image size.

    Args:
        file: .safetensors or .pth, see ``load_tensors``, in one of the formats registered in
            ``fedpeft.models.checkpoints.format`` for the backbone's family.
        model: the model that will be filled; only names and shapes are read, so it may be on the meta device.
        backbone: its ``fresh`` tensors are left out, and so are adapters, which checkpoints do not have.

    Returns:
        Parameter path -> float32 tensor of the model's shape.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is unreadable or truncated, its names are of no known format, or a tensor is missing,
            unexpected or of the wrong shape; the message names the file, the first offending key and what was expected.
    """
    return _taken_over(file, load_tensors(file, next(iter(_wanted(model, backbone)))), model, backbone)


def misfits(file: Path, models: Iterable[tuple[nn.Module, Backbone]]) -> list[str]:
    """Why a file cannot give its weights to models, one sentence for each reason; the file is read once.

    Args:
        file: see ``read_checkpoint``.
        models: at least one, on the meta device, each with its backbone.
    """
    models = list(models)
    try:
        stored = load_tensors(file, next(iter(_wanted(*models[0]))))
    except (FileNotFoundError, ValueError) as error:
        return [str(error)]
    faults = []
    for model, backbone in models:
        try:
            _taken_over(file, stored, model, backbone)
        except ValueError as error:
            faults.append(str(error))
    return list(dict.fromkeys(faults))


def _taken_over(file: Path, stored: dict[str, Tensor], model: nn.Module, backbone: Backbone) -> dict[str, Tensor]:
    """The file's tensors that the model takes over; see ``read_checkpoint``."""
    wanted = _wanted(model, backbone)
    form = format_of(stored, backbone)
    if form is None:
        first = ", ".join(map(repr, islice(stored, 3))) or "none"
        raise ValueError(
            f"checkpoint {file} does not fit backbone {backbone.name}: the first of its {len(stored)} tensors are "
            f"{first}. {remedy(backbone)}{hint(file)}"
        )
    unused = tuple(f"{part}." for part in form.parts if not hasattr(model, part))
    found = {key: tensor for key, tensor in form.translated(stored).items() if not key.startswith(unused)}
    fault = partial(_fault, file, backbone, stored)
    given = _fitted(wanted, found, form, fault)
    for key in found:
        if key not in wanted and not key.startswith(backbone.fresh) and not form.may_add(key):
            raise fault(key, "is not part of the model")
    return given


def _wanted(model: nn.Module, backbone: Backbone) -> dict[str, Tensor]:
    """The model's tensors that a checkpoint must give."""
    others = (*backbone.fresh, *adapter_prefixes(model))
    return {key: tensor for key, tensor in model.state_dict().items() if not key.startswith(others)}


def _fitted(
    wanted: dict[str, Tensor], found: dict[str, Tensor], form: Format, fault: Callable[[str, str], ValueError]
) -> dict[str, Tensor]:
    """The wanted tensors that a file gives, in float32 and the model's shapes."""
    given = {}
    for key, tensor in wanted.items():
        if key not in found and form.may_lack(key, found):
            continue
        if key not in found:
            raise fault(key, "is missing")
        fitted = fit(key, found[key].float(), tensor.shape)
        if fitted.shape != tensor.shape:
            raise fault(key, f"has shape {tuple(found[key].shape)}, expected {tuple(tensor.shape)}")
        given[key] = fitted
    return given


def _fault(file: Path, backbone: Backbone, stored: dict[str, Tensor], key: str, what: str) -> ValueError:
    return ValueError(
        f"checkpoint {file} does not fit backbone {backbone.name}: {key!r} {what}; the file has {len(stored)} tensors, "
        f"the first is {next(iter(stored), 'none')!r}. {remedy(backbone)}{hint(file)}"
    )

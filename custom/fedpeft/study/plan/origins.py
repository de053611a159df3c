"""Say of every field of a run which value it has and where the value comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpeft.config.defaults import fill
from fedpeft.config.run import Run, RunConfig
from fedpeft.config.sections import SECTIONS

# What set fields, from the weakest to the strongest: its name for people, and its fields.
Layers = Sequence[tuple[str, Mapping[str, Any]]]
PREPROCESSING = "preprocessing"
# Field -> the field that takes its place where it is set.
INSTEAD = {
    "warmup": "warmup_steps",
    "base_learning_rate": "learning_rate",
    "site_weighting": "site_weights",
}


@dataclass(frozen=True)
class Value:
    """A field of a run.

    Attributes:
        part: "model", "data", "training" or "federation"; "preprocessing" for what the data set's entry says of
            volumes.
        field: its name; for an option of the method's adapters, the option's.
        value: plain, as JSON has it.
        origin: what gave the value: a layer, "method", "backbone", "data set" or "default".
        unused: whether the value has no effect, see ``unused_fields``.
    """

    part: str
    field: str
    value: Any
    origin: str
    unused: bool = False


def values_of(run: Run, layers: Layers, otherwise: str) -> list[Value]:
    """Every field of a run, with its value and origin.

    Args:
        run: the run.
        layers: what may have set its fields. A field comes from the strongest layer that has its value.
        otherwise: the origin of a field that is set and whose value no layer has.
    """
    given, plain = flat(run.config), run.to_dict()
    known = [(name, flat(RunConfig.of(**fields))) for name, fields in layers]
    origins = _entries(run)
    for name, value in given.items():
        origins[name] = next((layer for layer, fields in reversed(known) if fields.get(name) == value), otherwise)
    found, unused = [], unused_fields(run)
    for section in SECTIONS:
        values = {name: value for name, value in plain[section].items() if name != "options"}
        if section == "model":
            values |= dict.fromkeys(run.method.options) | plain[section]["options"]
        found += [
            Value(section, name, value, origins.get(name, "default"), name in unused) for name, value in values.items()
        ]
    if not run.task.background:
        # Images of one class each are normalised by the backbone's colours alone.
        return found
    whose = f"{run.data.preprocessing} of {run.data.dataset}"
    return found + [Value(PREPROCESSING, name, value, whose) for name, value in run.preprocessing.to_dict().items()]


def unused_fields(run: Run) -> set[str]:
    """Fields without effect in a run: its task does not read them, or another field that is set takes their place."""
    given = flat(run.config)
    return {*run.task.unused, *(name for name, other in INSTEAD.items() if other in given)}


def flat(config: RunConfig) -> dict[str, Any]:
    """What a config sets: field, or option of adapters -> value."""
    values: dict[str, Any] = {}
    for section in SECTIONS:
        part = getattr(config, section)
        values |= {name: getattr(part, name) for name in type(part).model_fields}
    values |= dict(values.pop("options") or ())
    return {name: value for name, value in values.items() if value is not None}


def _entries(run: Run) -> dict[str, str]:
    """Field that is not set -> which entry gives its value."""
    values = run.config.to_dict()
    values["model"]["backbone"] = run.model.backbone
    return fill(values, run.method, run.backbone)

"""Changes of a run: those that would be set and change nothing are refused, those between two trainings are named."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedpeft.config.adapters import option_fields
from fedpeft.config.methods import method
from fedpeft.config.run import RunConfig
from fedpeft.config.sections import SECTION_OF


def refuse_unused(start: RunConfig, fields: Mapping[str, Any], methods: Sequence[str]) -> None:
    """Refuse changes that have no effect.

    Args:
        start: what is changed.
        fields: of the run, or options of adapters, that are set.
        methods: names of the methods that are run.

    Raises:
        ValueError: no method has the option, or a base learning rate stands beside a learning rate; the message names
            the field.
    """
    for name in sorted(option_fields().keys() & fields.keys()):
        if fields[name] is not None and not any(name in method(item).options for item in methods):
            raise ValueError(f"{name} is {fields[name]!r}, but {', '.join(methods)} has no such option")
    rate = fields.get("learning_rate", start.training.learning_rate)
    if fields.get("base_learning_rate") is not None and rate is not None:
        raise ValueError(
            f"base_learning_rate is {fields['base_learning_rate']!r}, but the learning rate is {rate!r} for every "
            "method; set learning_rate instead"
        )


def changed_inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names of the inputs that differ; method and preprocessing are compared as a whole.

    A field whose value is itself a table is named with the entries that differ, and their values.
    """
    found = []
    for key, value in {**dict.fromkeys(old), **new}.items():
        tables = isinstance(value, dict) and isinstance(old.get(key), dict) and key not in ("method", "preprocessing")
        if tables and key in SECTION_OF and key != "options":
            found += _changed_entries(key, old[key], value)
        elif tables:
            found += changed_inputs(old[key], value)
        elif old.get(key) != value:
            found.append(key)
    return found


def _changed_entries(field: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    pairs = {key: (old.get(key, "none"), new.get(key, "none")) for key in {**old, **new}}
    return [f"{field} of {key}: {was}, here {now}" for key, (was, now) in pairs.items() if was != now]

"""Changes of a run that would be set and change nothing are refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedpeft.config.adapters import option_fields
from fedpeft.config.methods import method
from fedpeft.config.run import RunConfig


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
